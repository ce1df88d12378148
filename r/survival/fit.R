# Churn as survival: Kaplan-Meier for the whole, Cox's proportional hazards for what speeds it up,
# and for each learner the risk within the next days.

library(survival)

# Fewer learners say nothing of a hazard.
fewest_rows <- 10L
# |coefficient| x standard deviation above which a column all but separates the learners with the
# event from those without: its estimate is on the way to infinity.
largest_effect <- 7
# Rule of thumb below which Cox coefficients are unsteady.
events_per_column <- 10
# p of the proportional-hazards test below which a warning is given.
small_p <- 0.05
# Newton steps; three to five are usual.
most_steps <- 50L

# The answer to POST /survival/fit.
fit_survival <- function(request) {
  rows <- read_rows(request, "rows", c("user_id", "duration_days", "event"))
  users <- text_column(rows, "user_id")
  covariates <- numeric_columns(rows, except = c("user_id", "duration_days", "event"))
  fit <- churn(
    data.frame(
      user_id = users,
      duration_days = number_column(rows, "duration_days", lower = 0),
      event = number_column(rows, "event", 0, 1, whole = TRUE)
    ),
    covariates$data,
    horizon_days = read_number(request, "horizon_days", 28, 1, 3650)
  )
  spec <- c(
    fit$model_spec,
    churn_days = read_number(request, "churn_days", 14, 1, 3650), seed = read_seed(request)
  )
  fit_answer(
    read_run_id(request, "survival"), spec, fit$metrics, c(covariates$warnings, fit$warnings),
    hazard_ratios = fit$hazard_ratios, kaplan_meier = fit$kaplan_meier, risks = fit$risks
  )
}

# Pure: learners (user_id, duration_days, event 0/1) and their numeric covariates in, estimates out.
churn <- function(learners, covariates, horizon_days = 28) {
  check_learners(learners)
  data <- cbind(learners[c("duration_days", "event")], covariates)
  columns <- names(covariates)
  cox <- fit_cox(data, columns)
  warnings <- character()
  aliased <- columns[is.na(stats::coef(cox))]
  if (length(aliased)) {
    warnings <- sprintf("The column %s follows from the others and was left out.", aliased)
    columns <- setdiff(columns, aliased)
    cox <- fit_cox(data, columns)
  }
  refuse_cox(cox, data, columns)
  if (length(columns) == 0) {
    warnings <- c(warnings, "No covariate is left; every learner has the same hazard.")
  } else if (cox$nevent < events_per_column * length(columns)) {
    warnings <- c(warnings, sprintf(
      "%d events for %d columns are few; hazard ratios are unsteady.", cox$nevent, length(columns)
    ))
  }
  ph_p <- if (length(columns)) cox.zph(cox)$table["GLOBAL", "p"]
  if (!is.null(ph_p) && is.finite(ph_p) && ph_p < small_p) {
    warnings <- c(warnings, sprintf(
      "The hazards are not proportional over time (p = %.2g); hazard ratios are averages.", ph_p
    ))
  }
  risks <- learner_risks(cox, learners, horizon_days)
  if (risks$beyond > 0) {
    warnings <- c(warnings, sprintf(
      paste("For %d learners the next %g days reach beyond the longest duration seen (%g days);",
            "the average hazard was taken there."),
      risks$beyond, horizon_days, max(learners$duration_days)
    ))
  }
  list(
    hazard_ratios = hazard_ratios(cox, columns),
    kaplan_meier = kaplan_meier(learners),
    risks = risks$risks,
    metrics = list(
      n = nrow(learners), events = sum(learners$event),
      concordance = if (length(columns)) unname(cox$concordance["concordance"]) else 0.5,
      log_likelihood = cox$loglik[length(cox$loglik)], ph_p = ph_p
    ),
    warnings = warnings,
    model_spec = list(
      method = "Cox proportional hazards, Efron ties; Kaplan-Meier, log intervals",
      package = "survival", version = as.character(utils::packageVersion("survival")),
      covariates = I(columns), horizon_days = horizon_days
    )
  )
}

check_learners <- function(learners) {
  if (nrow(learners) < fewest_rows) {
    bad_input("%d learners are too few for survival; at least %d are needed", nrow(learners),
              fewest_rows)
  }
  twice <- learners$user_id[duplicated(learners$user_id)]
  if (length(twice)) bad_input("the learner %s stands in the rows twice", twice[1])
  if (sum(learners$event) == 0) {
    bad_input("event is 0 for every learner; there is nothing to learn from until somebody stops")
  }
  if (max(learners$duration_days) == 0) bad_input("duration_days is 0 for every learner")
}

fit_cox <- function(data, columns) {
  # Back-quoted: a covariate may have any name.
  terms <- if (length(columns)) sprintf("`%s`", gsub("`", "\\\\`", columns)) else "1"
  formula <- stats::reformulate(terms, quote(Surv(duration_days, event)))
  # Its warning of an infinite coefficient is judged by number in refuse_cox.
  suppressWarnings(
    coxph(formula, data, ties = "efron", control = coxph.control(iter.max = most_steps))
  )
}

# 422 for estimates that must not be used.
refuse_cox <- function(cox, data, columns) {
  if (length(columns) == 0) return(invisible())
  effect <- abs(stats::coef(cox)) * vapply(data[columns], stats::sd, 0)
  separating <- columns[!is.finite(effect) | effect > largest_effect]
  if (length(separating)) {
    unusable(paste(
      "%s all but separates learners with the event from those without, so that its hazard ratio",
      "has no finite estimate; leave it out"
    ), separating[1])
  }
  if (cox$iter >= most_steps) unusable("the Cox model did not converge in %d steps", most_steps)
}

# exp(coefficient): the factor on the hazard for one unit more.
hazard_ratios <- function(cox, columns) {
  if (length(columns) == 0) return(list())
  estimate <- unname(stats::coef(cox))
  se <- sqrt(diag(stats::vcov(cox)))
  data.frame(
    term = columns, hazard_ratio = exp(estimate),
    lower = exp(estimate - stats::qnorm(0.975) * se),
    upper = exp(estimate + stats::qnorm(0.975) * se),
    p = 2 * stats::pnorm(-abs(estimate / se)), row.names = NULL
  )
}

kaplan_meier <- function(learners) {
  curve <- survfit(Surv(duration_days, event) ~ 1, learners, conf.type = "log")
  data.frame(
    time = curve$time, at_risk = curve$n.risk, survival = curve$surv,
    lower = curve$lower, upper = curve$upper
  )
}

# 1 - S(t + horizon | x) / S(t | x) at each learner's own t; 1 where the event has been.
learner_risks <- function(cox, learners, horizon_days) {
  # With predict's linear predictor, both are about the mean learner.
  hazard <- basehaz(cox, centered = TRUE)
  longest <- max(learners$duration_days)
  seen <- stats::stepfun(hazard$time, c(0, hazard$hazard))
  # After the longest duration nothing is known; its average slope is a better guess than no risk.
  slope <- seen(longest) / longest
  cumulative <- function(t) seen(pmin(t, longest)) + slope * pmax(0, t - longest)

  from <- learners$duration_days
  more <- cumulative(from + horizon_days) - cumulative(from)
  relative <- exp(stats::predict(cox, type = "lp"))
  had_it <- learners$event == 1
  list(
    risks = data.frame(
      user_id = learners$user_id, risk = ifelse(had_it, 1, 1 - exp(-more * relative))
    ),
    beyond = sum(!had_it & from + horizon_days > longest)
  )
}
