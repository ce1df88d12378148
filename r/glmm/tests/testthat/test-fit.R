# Sourced before: lib/input.R, lib/answer.R, fit.R (see r/test.sh).

# Learners with lines of their own, topics with levels.
school <- function(seed, n_users = 60, n_weeks = 8, slope_sd = 0.05) {
  set.seed(seed)
  users <- data.frame(user_id = sprintf("u%03d", seq_len(n_users)),
                      intercept = rnorm(n_users, 0.2, 0.8), slope = rnorm(n_users, 0.1, slope_sd))
  topics <- data.frame(topic_id = paste0("t", 1:6), level = c(-0.5, -0.3, -0.1, 0.1, 0.3, 0.5))
  rows <- merge(merge(users, topics), data.frame(week = seq_len(n_weeks) - 1))
  rows$score <- rows$intercept + rows$slope * rows$week + rows$level + rnorm(nrow(rows), 0, 0.3)
  list(users = users, topics = topics,
       rows = rows[c("user_id", "topic_id", "week", "score")])
}

test_that("sleepstudy has lme4's published estimates", {
  rows <- data.frame(user_id = as.character(sleepstudy$Subject), week = sleepstudy$Days,
                     score = sleepstudy$Reaction)
  fit <- lmer(score ~ week + (week | user_id), rows)
  fixed <- fixed_effects(fit)
  expect_equal(fixed$term, c("(Intercept)", "week"))
  expect_equal(fixed$estimate, c(251.405, 10.467), tolerance = 1e-4)
  expect_equal(fixed$se, c(6.825, 1.546), tolerance = 1e-3)
  expect_equal(fixed$t, c(36.838, 6.771), tolerance = 1e-3)
  found <- variances(fit)
  expect_equal(found$group, c("user_id", "user_id", "Residual"))
  expect_equal(found$sd, c(24.741, 5.922, 25.592), tolerance = 1e-3)
  expect_equal(found$correlation, c(NA, 0.066, NA), tolerance = 0.02)
  lines <- student_lines(fit)
  expect_equal(unlist(lines[lines$user_id == "308", c("intercept", "slope")], use.names = FALSE),
               c(253.664, 19.666), tolerance = 1e-4)
  expect_true(converged(fit))
})

test_that("a simulated school is recovered", {
  truth <- school(1)
  answer <- fit_progress(list(rows = truth$rows, run_id = "r1"))
  expect_identical(answer$fit_meta$run_id, "r1")
  expect_identical(answer$fit_meta$model_spec$formula, progress_formulas[1])
  expect_equal(answer$fixed$estimate, c(mean(truth$users$intercept), mean(truth$users$slope)),
               tolerance = 0.02)
  at <- match(truth$users$user_id, answer$students$user_id)
  expect_gt(cor(answer$students$intercept[at], truth$users$intercept), 0.98)
  expect_gt(cor(answer$students$slope[at], truth$users$slope), 0.85)
  expect_equal(answer$topics$intercept[match(truth$topics$topic_id, answer$topics$topic_id)],
               truth$topics$level, tolerance = 0.15)
  metrics <- answer$fit_meta$metrics
  expect_equal(metrics$sigma, 0.3, tolerance = 0.03)
  expect_identical(c(metrics$n, metrics$students, metrics$topics), c(2880L, 60L, 6L))
  expect_true(metrics$converged)
  expect_false(metrics$singular)
  expect_length(answer$warnings, 0)
})

test_that("the answer is that of lme4 itself", {
  truth <- school(2)
  answer <- fit_progress(list(rows = truth$rows))
  fit <- lmer(score ~ week + (week | user_id) + (1 | topic_id), truth$rows)
  expect_equal(answer$fit_meta$metrics$log_likelihood, as.numeric(logLik(fit)), tolerance = 1e-6)
  expect_equal(answer$fit_meta$metrics$aic, AIC(fit), tolerance = 1e-6)
  expect_equal(answer$students$slope, coef(fit)$user_id$week, tolerance = 1e-3)
})

# A school in which all have exactly the same slope: the noise has none, learner by learner, so that
# slopes differ less than chance would have it.
same_slopes <- function(intercept_sd) {
  truth <- school(3)
  rows <- truth$rows
  noise <- rnorm(nrow(rows), 0, 0.3)
  for (of in split(seq_len(nrow(rows)), rows$user_id)) {
    noise[of] <- residuals(lm(noise[of] ~ rows$week[of]))
  }
  own <- setNames(rnorm(60, 0, intercept_sd), truth$users$user_id)
  level <- setNames(truth$topics$level, truth$topics$topic_id)
  rows$score <- own[rows$user_id] + level[rows$topic_id] + 0.1 * rows$week + noise
  rows
}

test_that("a singular fit falls back to a simpler model and says so", {
  answer <- fit_progress(list(rows = same_slopes(0.8)))
  expect_identical(answer$fit_meta$model_spec$formula, progress_formulas[3])
  expect_length(answer$warnings, 2)
  expect_match(answer$warnings, "was not used: it is singular")
  # Without slopes of their own all learners share the fixed one.
  expect_equal(answer$students$slope, rep(answer$fixed$estimate[2], 60))
  expect_equal(answer$fixed$estimate[2], 0.1, tolerance = 1e-3)
  expect_identical(answer$variances$term, c("(Intercept)", "(Intercept)", "Residual"))
})

test_that("with one topic its term is left out, with a warning", {
  rows <- school(6)$rows
  answer <- fit_progress(list(rows = rows[rows$topic_id == "t1", ]))
  expect_identical(answer$fit_meta$model_spec$formula, "score ~ week + (week | user_id)")
  expect_match(answer$warnings, "one curriculum topic only")
  expect_equal(answer$topics, data.frame(topic_id = "t1", intercept = 0))
})

test_that("a school in which nobody differs is refused: every model is singular", {
  error <- tryCatch(fit_progress(list(rows = same_slopes(0))), refusal = identity)
  expect_s3_class(error, "refusal")
  expect_identical(error$status, 422L)
  expect_match(conditionMessage(error), "no model can be used")
})

test_that("what cannot be fitted is refused with a reason", {
  rows <- school(5, n_users = 4, n_weeks = 3)$rows
  refused <- function(rows, told, ...) {
    error <- tryCatch(fit_progress(list(rows = rows, ...)), refusal = identity)
    expect_s3_class(error, "refusal")
    expect_identical(error$status, 400L)
    expect_match(conditionMessage(error), told)
  }
  refused(rows[1:9, ], "9 are too few; at least 10")
  refused(rows[1:9, ], "9 are too few; at least 9[0-9]", min_observations = 99)
  refused(transform(rows, user_id = "u"), "1 user_id; at least 2")
  refused(transform(rows, week = 3), "all are of week 3")
  refused(transform(rows, score = 0.5), "all scores are 0.5")
  refused(transform(rows, score = c(NA, score[-1])), "row 1: score is missing")
  refused(transform(rows, week = week + 0.5), "week is .*whole number")
  refused(rows[c("user_id", "week", "score")], "column topic_id is missing")
  refused(transform(rows, user_id = seq_along(user_id)), "row 1: user_id is 1; it must be a text")
  refused(transform(rows, user_id = paste(seq_along(user_id))), "every user_id has one row only")
})
