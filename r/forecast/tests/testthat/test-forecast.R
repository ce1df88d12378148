# Known answers: a line with noise, a planted anomaly, a planted season.
# Sourced before: lib/input.R, lib/answer.R, fit.R (see r/test.sh).

true_line <- function(week) 0.1 + 0.002 * week
noise_sd <- 0.01

# Weeks from Monday 6 January 2025; noise and no anomaly.
simulated <- function(weeks = 40, seed = 1) {
  set.seed(seed)
  week <- seq_len(weeks) - 1
  data.frame(
    week_start = format(as.Date("2025-01-06") + 7 * week),
    value = true_line(week) + rnorm(weeks, sd = noise_sd)
  )
}

refused <- function(request) expect_error(fit_forecast(request), class = "refusal")

test_that("a line with noise is continued, its next weeks within the interval", {
  answer <- fit_forecast(list(series = simulated()))
  expect_equal(answer$forecast$week_start,
               c("2025-10-13", "2025-10-20", "2025-10-27", "2025-11-03"))
  expect_equal(answer$forecast$expected, true_line(40:43), tolerance = 0.05)
  expect_true(all(answer$forecast$lower < true_line(40:43)))
  expect_true(all(answer$forecast$upper > true_line(40:43)))
  # 95 %: about 1.96 standard deviations each way.
  expect_equal(mean(answer$forecast$upper - answer$forecast$lower), 2 * 1.96 * noise_sd,
               tolerance = 0.25)
  expect_equal(answer$fit_meta$metrics$residual_sd, noise_sd, tolerance = 0.25)
  expect_equal(answer$fit_meta$metrics$n, 40)
  expect_equal(answer$fitted$value, simulated()$value)
})

test_that("the interval holds 95 % of the weeks to come, where the line itself is uncertain too", {
  # Twelve weeks: noise about a line that were known would hold 85 %.
  found <- vapply(1:25, function(seed) {
    series <- simulated(weeks = 16, seed = seed)
    forecast <- fit_forecast(list(series = series[1:12, ]))$forecast
    value <- series$value[13:16]
    c(held = mean(forecast$lower < value & value < forecast$upper),
      width = mean(forecast$upper - forecast$lower))
  }, c(held = 0, width = 0))
  expect_gt(mean(found["held", ]), 0.91)
  # The whole range of a known line's noise is .04.
  expect_lt(mean(found["width", ]), 0.08)
})

test_that("a planted anomaly is found with its size, and bends nothing", {
  series <- simulated()
  without <- fit_forecast(list(series = series))
  for (size in c(0.1, -0.1)) {
    planted <- series
    planted$value[21] <- true_line(20) + size
    answer <- fit_forecast(list(series = planted))
    expect_true(series$week_start[21] %in% answer$anomalies$week_start)
    found <- answer$anomalies[answer$anomalies$week_start == series$week_start[21], ]
    expect_equal(found$value - found$expected, size, tolerance = 0.1)
    expect_equal(sign(found$z), sign(size))
    expect_gt(abs(found$z), 7)
    expect_equal(answer$fit_meta$metrics$left_out, 1)
    expect_equal(answer$forecast$expected, without$forecast$expected, tolerance = 0.05)
    expect_equal(answer$forecast$upper - answer$forecast$lower,
                 without$forecast$upper - without$forecast$lower, tolerance = 0.2)
  }
})

test_that("noise alone gives few anomalies", {
  found <- vapply(1:6, function(seed) {
    nrow(fit_forecast(list(series = simulated(seed = seed)))$anomalies)
  }, 0L)
  # 1.2 % of 240 weeks are expected beyond 2.5; the robust scale of 40 weeks adds some.
  expect_lte(sum(found), 12)
})

test_that("a higher z names fewer weeks", {
  series <- simulated()
  series$value[21] <- series$value[21] + 0.1
  expect_equal(nrow(fit_forecast(list(series = series, z = 5))$anomalies), 1)
  expect_equal(fit_forecast(list(series = series, z = 5))$fit_meta$model_spec$z, 5)
})

test_that("the season of the year is found in three years of weeks", {
  series <- simulated(weeks = 156)
  season <- function(day) 0.1 * sin(2 * pi * as.numeric(day) / 365.25)
  series$value <- series$value + season(as.Date(series$week_start))
  answer <- fit_forecast(list(series = series))
  expect_true(answer$fit_meta$model_spec$yearly_seasonality)
  truth <- true_line(156:159) + season(as.Date(answer$forecast$week_start))
  expect_lt(max(abs(answer$forecast$expected - truth)), 2 * noise_sd)
})

test_that("the same seed gives the same answer, in any order of the weeks", {
  series <- simulated()
  expect_identical(
    fit_forecast(list(series = series, seed = 4, run_id = "r")),
    fit_forecast(list(series = series[40:1, ], seed = 4, run_id = "r"))
  )
})

test_that("missing weeks are bridged and counted", {
  answer <- fit_forecast(list(series = simulated()[-c(10, 11, 30), ], horizon = 8))
  expect_equal(as.character(answer$warnings),
               "3 of 40 weeks are missing; the trend was drawn across them.")
  expect_equal(nrow(answer$forecast), 8)
  expect_equal(nrow(answer$fitted), 37)
})

test_that("fewer weeks are forecast where the request asks for it, down to four", {
  series <- simulated()
  answer <- fit_forecast(list(series = series[1:6, ], min_weeks = 4))
  expect_equal(nrow(answer$forecast), 4)
  expect_equal(nrow(answer$fitted), 6)
  few <- refused(list(series = series[1:3, ], min_weeks = 4))
  expect_match(conditionMessage(few), "3 weeks are too few for a forecast; at least 4 are needed")
  more <- refused(list(series = series, min_weeks = 41))
  expect_match(conditionMessage(more), "40 weeks are too few")
  expect_match(conditionMessage(refused(list(series = series, min_weeks = 3))), "min_weeks is 3")
})

test_that("a robust scale is not moved by one week", {
  expect_equal(robust_sd(c(-1, 1, -1, 1, 100)), 1.4826)
  expect_equal(robust_sd(c(0, 0, 0, 2)), 1)
  expect_equal(robust_z(c(0, 0)), c(0, 0))
})

test_that("what cannot be forecast is refused with its reason", {
  series <- simulated()
  expect_match(conditionMessage(refused(list(series = series[1:7, ]))), "7 weeks are too few")
  expect_match(conditionMessage(refused(list(series = transform(series, value = 0.2)))),
               "value is 0.2 in every week")
  tuesday <- replace(series, 1, format(as.Date(series$week_start) + 1))
  expect_match(conditionMessage(refused(list(series = tuesday))), "2025-01-07 is not a Monday")
  expect_match(conditionMessage(refused(list(series = series[c(1, 1:20), ]))),
               "2025-01-06 stands in")
  series$value[5] <- NA
  error <- refused(list(series = series))
  expect_equal(error$status, 400L)
  expect_match(conditionMessage(error), "row 5: value")
})
