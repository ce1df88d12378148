# Weekly forecast and anomalies, by prophet: a piecewise linear trend, and seasons of the year where
# the series is long enough to show them.

# It asks the system for its time zone, where there may be none. Days here are UTC.
Sys.setenv(TZ = "UTC")
library(prophet)

# Fewer weeks show no trend.
fewest_weeks <- 8L
# Two years: below, a season of the year cannot be told from the trend.
weeks_of_two_years <- 104L
# |z| of a first line from which a week is left out of the second: far enough that ordinary weeks
# stay in, without which the forecast's interval would come out too narrow.
far_out <- 4
# Draws of the posterior of which the interval is made, over all chains; as many are warm-up. Without
# them prophet takes the line for known, and its 95 % interval held 90 % of weeks to come.
draws <- 300L
chains <- 2L
# Above this share of weeks, what looks far out is how the series is; none is left out.
largest_share_left_out <- 0.2

# The answer to POST /forecast/fit.
fit_forecast <- function(request) {
  series <- read_rows(request, "series", c("week_start", "value"))
  series <- data.frame(
    week_start = date_column(series, "week_start"), value = number_column(series, "value")
  )
  fit <- forecast(
    series,
    horizon = read_number(request, "horizon", 4, 1, 52, whole = TRUE),
    z = read_number(request, "z", 2.5, 1, 10),
    seed = read_seed(request),
    min_weeks = read_number(request, "min_weeks", fewest_weeks, 4, 1000, whole = TRUE)
  )
  fit_answer(
    read_run_id(request, "forecast"), fit$model_spec, fit$metrics, fit$warnings,
    forecast = fit$forecast, fitted = fit$fitted, anomalies = fit$anomalies
  )
}

# Pure: a series (week_start Date, value) in, a forecast of `horizon` weeks and the weeks with
# |z| >= `z` out.
forecast <- function(series, horizon = 4, z = 2.5, seed = 1L, min_weeks = fewest_weeks) {
  check_series(series, min_weeks)
  series <- series[order(series$week_start), ]
  n <- nrow(series)
  weeks <- as.numeric(diff(range(series$week_start))) / 7 + 1
  warnings <- character()
  if (weeks > n) {
    warnings <- sprintf("%.0f of %.0f weeks are missing; the trend was drawn across them.",
                        weeks - n, weeks)
  }

  first <- fit_prophet(series, seed)
  score <- robust_z(series$value - expected_values(first, series))
  # Such a week must not bend the line that it is judged by, nor widen the forecast.
  left_out <- abs(score) >= far_out
  if (mean(left_out) > largest_share_left_out || sum(!left_out) < fewest_weeks ||
        length(unique(series$value[!left_out])) < 2) {
    left_out[] <- FALSE
  }
  model <- fit_prophet(series[!left_out, ], seed, sampled = TRUE)
  expected <- expected_values(model, series)
  residual <- series$value - expected
  score <- robust_z(residual)
  fitted <- data.frame(
    week_start = format(series$week_start), value = series$value, expected = expected
  )
  is_anomaly <- abs(score) >= z

  list(
    forecast = predict_weeks(model, max(series$week_start) + 7 * seq_len(horizon), seed),
    fitted = fitted,
    anomalies = cbind(fitted, z = score)[is_anomaly, ],
    metrics = list(
      n = n, mae = mean(abs(residual)), rmse = sqrt(mean(residual^2)),
      residual_sd = robust_sd(residual), left_out = sum(left_out)
    ),
    warnings = warnings,
    model_spec = list(
      method = "linear trend with changepoints", package = "prophet",
      version = as.character(utils::packageVersion("prophet")), changepoints = model$n.changepoints,
      changepoint_prior_scale = model$changepoint.prior.scale,
      yearly_seasonality = weeks >= weeks_of_two_years,
      interval = 0.95, draws = draws, z = z, horizon = horizon, seed = seed
    )
  )
}

check_series <- function(series, min_weeks = fewest_weeks) {
  if (nrow(series) < min_weeks) {
    bad_input("%d weeks are too few for a forecast; at least %d are needed", nrow(series),
              as.integer(min_weeks))
  }
  # %u: 1 is Monday, in every locale.
  wrong <- series$week_start[format(series$week_start, "%u") != "1"]
  if (length(wrong)) bad_input("week_start %s is not a Monday", format(wrong[1]))
  twice <- series$week_start[duplicated(series$week_start)]
  if (length(twice)) bad_input("the week %s stands in the series twice", format(twice[1]))
  if (length(unique(series$value)) < 2) {
    bad_input("value is %s in every week; there is nothing to forecast", shown(series$value, 1))
  }
}

# The most probable line, or `sampled` from the posterior.
fit_prophet <- function(series, seed, sampled = FALSE) {
  days <- as.numeric(diff(range(series$week_start)))
  set.seed(seed)
  fit <- function(...) {
    prophet(
      data.frame(ds = series$week_start, y = series$value),
      n.changepoints = min(25L, nrow(series) %/% 4L),
      yearly.seasonality = days / 7 + 1 >= weeks_of_two_years,
      weekly.seasonality = FALSE, daily.seasonality = FALSE,
      interval.width = 0.95, seed = seed, ...
    )
  }
  if (!sampled) return(fit())
  # Stan's warnings are about more digits than an interval needs.
  suppressWarnings(
    fit(mcmc.samples = 2L * draws %/% chains, chains = chains, cores = 1L, refresh = 0L)
  )
}

expected_values <- function(model, series) {
  # The fitted line needs no drawn futures.
  model$uncertainty.samples <- 0
  predict(model, data.frame(ds = series$week_start))$yhat
}

predict_weeks <- function(model, weeks, seed) {
  # Lines and noise are drawn.
  set.seed(seed)
  future <- predict(model, data.frame(ds = weeks))
  data.frame(
    week_start = format(weeks), expected = future$yhat,
    lower = future$yhat_lower, upper = future$yhat_upper
  )
}

# Residuals in robust standard deviations; 0 where they do not vary.
robust_z <- function(residual) {
  scale <- robust_sd(residual)
  if (scale > 0) residual / scale else 0 * residual
}

# 1.4826 median |residual|, which an anomaly does not move; the ordinary one where more than half of
# the residuals are 0.
robust_sd <- function(residual) {
  scale <- stats::mad(residual, center = 0)
  if (scale > 0) scale else sqrt(mean(residual^2))
}
