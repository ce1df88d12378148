# Known answers: survival's lung data, whose Cox fit on age, sex and ph.ecog is in many textbooks.
# Sourced before: lib/input.R, lib/answer.R, fit.R (see r/test.sh).

lung_rows <- function() {
  complete <- na.omit(survival::lung[c("time", "status", "age", "sex", "ph.ecog")])
  data.frame(
    user_id = sprintf("patient %d", seq_len(nrow(complete))), duration_days = complete$time,
    event = complete$status - 1, complete[c("age", "sex", "ph.ecog")]
  )
}

refused <- function(request) expect_error(fit_survival(request), class = "refusal")

test_that("the lung data give the published Cox coefficients", {
  answer <- fit_survival(list(rows = lung_rows(), run_id = "r1"))
  expect_equal(answer$hazard_ratios$term, c("age", "sex", "ph.ecog"))
  expect_equal(log(answer$hazard_ratios$hazard_ratio), c(0.011067, -0.552612, 0.463728),
               tolerance = 1e-5)
  expect_equal(answer$hazard_ratios$lower, c(0.9929, 0.4142, 1.2727), tolerance = 1e-4)
  expect_equal(answer$hazard_ratios$upper, c(1.0297, 0.7994, 1.9864), tolerance = 1e-4)
  expect_equal(answer$hazard_ratios$p, c(0.232416, 0.000986, 4.45e-05), tolerance = 1e-3)
  metrics <- answer$fit_meta$metrics
  expect_equal(c(metrics$n, metrics$events), c(227, 164))
  expect_equal(metrics$concordance, 0.637, tolerance = 1e-3)
  expect_equal(metrics$ph_p, 0.22, tolerance = 0.02)
  expect_equal(answer$fit_meta$run_id, "r1")
  expect_equal(answer$fit_meta$model_spec$churn_days, 14)
})

test_that("Kaplan-Meier of the whole lung data has the published median of 310 days", {
  lung <- survival::lung
  curve <- kaplan_meier(data.frame(duration_days = lung$time, event = lung$status - 1))
  expect_equal(curve$at_risk[1], 228)
  expect_equal(min(curve$time[curve$survival <= 0.5]), 310)
  expect_true(all(curve$lower <= curve$survival, na.rm = TRUE))
})

test_that("a learner's risk is what survfit predicts for that learner", {
  rows <- lung_rows()
  answer <- fit_survival(list(rows = rows, horizon_days = 100))
  fit <- coxph(Surv(duration_days, event) ~ age + sex + ph.ecog, rows)
  alive <- which(rows$event == 0 & rows$duration_days + 100 < max(rows$duration_days))[1:20]
  for (i in alive) {
    curve <- summary(survfit(fit, newdata = rows[i, ]), times = rows$duration_days[i] + c(0, 100))
    expect_equal(answer$risks$risk[i], 1 - curve$surv[2] / curve$surv[1], tolerance = 1e-8)
  }
  expect_true(all(answer$risks$risk[rows$event == 1] == 1))
})

test_that("a constant hazard of 2 % a day gives its 28-day risk, also beyond what was seen", {
  set.seed(7)
  n <- 2000
  lifetime <- rexp(n, 0.02)
  rows <- data.frame(user_id = paste0("u", 1:n), duration_days = pmin(lifetime, 60),
                     event = as.integer(lifetime <= 60), load = rnorm(n))
  answer <- fit_survival(list(rows = rows))
  still <- answer$risks$risk[rows$event == 0]
  expect_equal(mean(still), 1 - exp(-0.02 * 28), tolerance = 0.06)
  expect_match(answer$warnings, "reach beyond the longest duration", all = FALSE)
})

test_that("a simulated hazard ratio lies in its interval", {
  set.seed(11)
  n <- 600
  load <- rnorm(n)
  lifetime <- rexp(n, 0.03 * exp(0.7 * load))
  answer <- fit_survival(list(rows = data.frame(
    user_id = paste0("u", 1:n), duration_days = pmin(lifetime, 50),
    event = as.integer(lifetime <= 50), load = load
  )))
  expect_lt(answer$hazard_ratios$lower, exp(0.7))
  expect_gt(answer$hazard_ratios$upper, exp(0.7))
  expect_lt(answer$hazard_ratios$upper / answer$hazard_ratios$lower, 1.6)
})

test_that("constant and dependent columns are left out and named", {
  rows <- transform(lung_rows(), school = 1, months = age * 12)
  answer <- fit_survival(list(rows = rows))
  expect_match(answer$warnings, "column school does not vary", all = FALSE)
  expect_match(answer$warnings, "column months follows from the others", all = FALSE)
  expect_equal(answer$hazard_ratios$term, c("age", "sex", "ph.ecog"))
})

test_that("without covariates everybody has the baseline hazard", {
  rows <- lung_rows()[c("user_id", "duration_days", "event")]
  answer <- fit_survival(list(rows = rows))
  expect_length(answer$hazard_ratios, 0)
  expect_equal(answer$fit_meta$metrics$concordance, 0.5)
  expect_match(answer$warnings, "No covariate is left", all = FALSE)
  same <- rows$event == 0 & rows$duration_days == 175
  expect_equal(length(unique(answer$risks$risk[same])), 1)
})

test_that("a column of any name is a covariate", {
  rows <- lung_rows()
  names(rows)[4] <- "age in `years`, rounded"
  expect_equal(fit_survival(list(rows = rows))$hazard_ratios$term[1], names(rows)[4])
})

test_that("a column that separates those with the event is refused as unusable", {
  rows <- transform(lung_rows(), gone = event)
  error <- refused(list(rows = rows))
  expect_equal(error$status, 422L)
  expect_match(conditionMessage(error), "gone all but separates")
})

test_that("what cannot be fitted is refused with its reason", {
  rows <- lung_rows()
  expect_match(conditionMessage(refused(list(rows = rows[1:9, ]))), "9 learners are too few")
  expect_match(conditionMessage(refused(list(rows = transform(rows, event = 0)))),
               "event is 0 for every learner")
  expect_match(conditionMessage(refused(list(rows = rbind(rows, rows[1, ])))),
               "stands in the rows twice")
  expect_match(conditionMessage(refused(list(rows = transform(rows, event = 2)))), "event is 2")
  rows$age[3] <- NaN
  error <- refused(list(rows = rows))
  expect_equal(error$status, 400L)
  expect_match(conditionMessage(error), "row 3: age")
})
