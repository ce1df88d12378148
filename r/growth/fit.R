# Growth curves in the Bayesian way: score ~ week + (week | user_id) + (1 | topic_id), by rstanarm.

library(rstanarm)

# Highest split R-hat that passes: above it the chains disagree, and their mean means nothing.
largest_rhat <- 1.05
# Effective draws a chain below which intervals are rough (Stan's own advice).
enough_ess_per_chain <- 100
# Fewer learners say nothing of how learners differ.
fewest_students <- 3L

# The answer to POST /growth/fit.
fit_growth <- function(request) {
  least <- read_number(request, "min_observations", 10, 3, 1e9, whole = TRUE)
  rows <- read_rows(request, "rows", c("user_id", "topic_id", "week", "score"), least)
  rows <- data.frame(
    user_id = text_column(rows, "user_id"),
    topic_id = text_column(rows, "topic_id"),
    week = number_column(rows, "week", 0, 10000, whole = TRUE),
    score = number_column(rows, "score")
  )
  fit <- growth(
    rows,
    chains = read_number(request, "chains", 2, 2, 8, whole = TRUE),
    iterations = read_number(request, "iterations", 1000, 100, 20000, whole = TRUE),
    max_observations = read_number(request, "max_observations", 1500, 100, 1e6, whole = TRUE),
    seed = read_seed(request)
  )
  fit_answer(
    read_run_id(request, "growth"), fit$model_spec, fit$metrics, fit$warnings,
    fixed = fit$fixed, students = fit$students
  )
}

# Pure: rows (user_id, topic_id, week, score) in, estimates out.
# `iterations` are per chain; half of them are warm-up. Of more than `max_observations` rows, whole
# learners are drawn: sampling takes time in proportion.
growth <- function(rows, chains = 2, iterations = 1000, max_observations = 1500, seed = 1L) {
  check_growth_rows(rows)
  warnings <- character()
  sampled <- sample_students(rows, max_observations, seed)
  if (nrow(sampled) < nrow(rows)) {
    warnings <- c(warnings, sprintf(
      "%d of %d learners were drawn, to keep to max_observations (%d); the curve is theirs.",
      length(unique(sampled$user_id)), length(unique(rows$user_id)), as.integer(max_observations)
    ))
    rows <- sampled
    # The draw may have left no difference.
    check_growth_rows(rows)
  }
  formula <- score ~ time + (time | student)
  stated <- "score ~ week + (week | user_id)"
  if (length(unique(rows$topic_id)) > 1) {
    formula <- score ~ time + (time | student) + (1 | topic)
    stated <- "score ~ week + (week | user_id) + (1 | topic_id)"
  } else {
    warnings <- c(warnings, "There is one topic only; the topic term was left out.")
  }

  # The same rows in another order must give the same draws.
  rows <- rows[order(rows$user_id, rows$topic_id, rows$week, rows$score, method = "radix"), ]
  ids <- unique(rows$user_id)
  # Codes, not names: rstanarm changes blanks in names.
  rows$student <- factor(match(rows$user_id, ids))
  rows$topic <- factor(match(rows$topic_id, unique(rows$topic_id)))

  # Sampled in standard deviations from the mean week, where intercepts and slopes are least tied to
  # each other; all that is told is a week's again.
  scale <- list(mean = mean(rows$week), sd = stats::sd(rows$week))
  rows$time <- (rows$week - scale$mean) / scale$sd

  priors <- growth_priors(rows)
  adapt_delta <- 0.95
  model <- sample_growth(formula, rows, priors, chains, iterations, seed, adapt_delta)
  divergences <- rstan::get_num_divergent(model$stanfit)
  if (divergences > 0) {
    warnings <- c(warnings, sprintf(
      "%d transitions diverged; sampled again with adapt_delta .99.", divergences
    ))
    adapt_delta <- 0.99
    model <- sample_growth(formula, rows, priors, chains, iterations, seed, adapt_delta)
    divergences <- rstan::get_num_divergent(model$stanfit)
  }
  # Every parameter, the learners' too; the last rows are predictions and the log density.
  diagnostics <- model$stan_summary[
    !rownames(model$stan_summary) %in% c("mean_PPD", "log-posterior"), , drop = FALSE
  ]
  metrics <- list(
    n = nrow(rows), students = length(ids), topics = nlevels(rows$topic),
    max_rhat = max(diagnostics[, "Rhat"]), min_ess = min(diagnostics[, "n_eff"]),
    divergences = divergences, sigma = mean(as.matrix(model, pars = "sigma"))
  )
  refuse_growth(metrics)
  if (metrics$min_ess < enough_ess_per_chain * chains) {
    warnings <- c(warnings, sprintf(
      paste("The smallest effective sample size is %.0f, below %d; intervals are rough, take more",
            "iterations."),
      metrics$min_ess, as.integer(enough_ess_per_chain * chains)
    ))
  }
  list(
    fixed = fixed_growth(model, scale),
    students = student_growth(model, ids, scale),
    metrics = metrics,
    warnings = warnings,
    model_spec = list(
      formula = stated,
      method = "stan_lmer, NUTS", package = "rstanarm",
      version = as.character(utils::packageVersion("rstanarm")),
      priors = priors$stated, chains = chains, iterations = iterations,
      adapt_delta = adapt_delta, seed = seed
    )
  )
}

check_growth_rows <- function(rows) {
  students <- length(unique(rows$user_id))
  if (students < fewest_students) {
    bad_input("%d learners are too few for a growth curve; at least %d are needed", students,
              fewest_students)
  }
  for (column in c("week", "score")) {
    if (length(unique(rows[[column]])) < 2) {
      bad_input("%s is %s in every row; growth cannot be told from it", column,
                shown(rows[[column]], 1))
    }
  }
  if (max(table(rows$user_id)) < 2) {
    bad_input("no learner has more than one row; growth needs at least two weeks of a learner")
  }
}

# Whole learners with `limit` rows at most, drawn by `seed` alone: the order of the rows does not
# matter.
sample_students <- function(rows, limit, seed) {
  if (nrow(rows) <= limit) return(rows)
  set.seed(seed)
  counts <- table(rows$user_id)
  # Not by the locale's order.
  counts <- sample(counts[order(names(counts), method = "radix")])
  drawn <- max(fewest_students, sum(cumsum(counts) <= limit))
  rows[rows$user_id %in% names(counts)[seq_len(drawn)], ]
}

# Weakly informative, on the scale of the data: `stated` says in words and numbers what is used.
growth_priors <- function(rows) {
  centre <- mean(rows$score)
  spread <- stats::sd(rows$score)
  list(
    intercept = normal(centre, 2.5 * spread, autoscale = FALSE),
    # From one end of the weeks to the other, more than the scores differ is not expected.
    slope = normal(0, spread, autoscale = FALSE),
    sigma = exponential(1 / spread, autoscale = FALSE),
    covariance = decov(regularization = 1, concentration = 1, shape = 1, scale = 1),
    stated = list(
      intercept = sprintf("normal(%.4g, %.4g) at the mean week", centre, 2.5 * spread),
      week = sprintf("normal(0, %.4g)", spread / stats::sd(rows$week)),
      sigma = sprintf("exponential(%.4g)", 1 / spread),
      covariance = paste(
        "decov(regularization 1, concentration 1, shape 1, scale 1), in units of sigma,",
        "at the mean week and for a standard deviation of weeks"
      )
    )
  )
}

sample_growth <- function(formula, rows, priors, chains, iterations, seed, adapt_delta) {
  # Its warnings are the diagnostics that are judged below by number.
  suppressWarnings(stan_lmer(
    formula, data = rows,
    prior_intercept = priors$intercept, prior = priors$slope, prior_aux = priors$sigma,
    prior_covariance = priors$covariance,
    chains = chains, iter = iterations, seed = seed, adapt_delta = adapt_delta,
    cores = 1, refresh = 0
  ))
}

# 422 for a sample that must not be used.
refuse_growth <- function(metrics) {
  if (metrics$divergences > 0) {
    unusable(paste(
      "%d transitions diverged, at adapt_delta .99 too: the posterior was not explored.",
      "More weeks a learner help, or the GLMM in its place"
    ), metrics$divergences)
  }
  if (!is.finite(metrics$max_rhat) || metrics$max_rhat > largest_rhat) {
    unusable("the chains disagree (R-hat %.3f, allowed %.2f); take more iterations",
             metrics$max_rhat, largest_rhat)
  }
}

# At week 0 and for one week more, from draws at the mean week and for a standard deviation more.
unscaled <- function(intercept, slope, scale) {
  slope <- slope / scale$sd
  list(intercept = intercept - slope * scale$mean, slope = slope)
}

fixed_growth <- function(model, scale) {
  # iterations x chains x parameters: convergence is judged chain by chain.
  draws <- as.array(model, pars = c("(Intercept)", "time"))
  week <- unscaled(draws[, , 1], draws[, , 2], scale)
  term <- function(name, draws) {
    data.frame(
      term = name, mean = mean(draws), sd = stats::sd(draws),
      lower = stats::quantile(draws, 0.025), upper = stats::quantile(draws, 0.975),
      rhat = rstan::Rhat(draws), ess = rstan::ess_bulk(draws), row.names = NULL
    )
  }
  rbind(term("(Intercept)", week$intercept), term("week", week$slope))
}

# A learner's own line: fixed effect + deviation, draw by draw.
student_growth <- function(model, ids, scale) {
  draws <- as.matrix(model)
  own <- function(term) {
    draws[, term] + draws[, sprintf("b[%s student:%d]", term, seq_along(ids)), drop = FALSE]
  }
  week <- unscaled(own("(Intercept)"), own("time"), scale)
  bounds <- apply(week$slope, 2, stats::quantile, c(0.025, 0.975))
  data.frame(
    user_id = ids, intercept = colMeans(week$intercept), slope = colMeans(week$slope),
    slope_lower = bounds[1, ], slope_upper = bounds[2, ], row.names = NULL
  )
}
