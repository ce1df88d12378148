# Known answers: lme4's sleepstudy, and simulated learners with two topics.
# Sourced before: lib/input.R, lib/answer.R, fit.R (see r/test.sh).

refused <- function(call) expect_error(call, class = "refusal")

sleep_rows <- function() {
  data("sleepstudy", package = "lme4", envir = environment())
  data.frame(
    user_id = paste("subject", sleepstudy$Subject), topic_id = "reaction",
    week = sleepstudy$Days, score = sleepstudy$Reaction
  )
}

# Twenty learners, eight weeks, two topics; `own` has their true lines.
simulated <- function() {
  set.seed(21)
  own <- data.frame(intercept = rnorm(20, 0.5, 0.1), slope = rnorm(20, 0.02, 0.02))
  rows <- expand.grid(user = 1:20, topic = 1:2, week = 0:7)
  rows$score <- own$intercept[rows$user] + own$slope[rows$user] * rows$week +
    c(-0.1, 0.1)[rows$topic] + rnorm(nrow(rows), sd = 0.1)
  list(own = own, rows = data.frame(
    user_id = sprintf("u%02d", rows$user), topic_id = paste0("t", rows$topic),
    week = rows$week, score = rows$score
  ))
}

test_that("sleepstudy gives lme4's estimates within the posterior's error", {
  answer <- fit_growth(list(rows = sleep_rows(), run_id = "r1"))
  by_lme4 <- lme4::lmer(Reaction ~ Days + (Days | Subject), lme4::sleepstudy)
  fixed <- answer$fixed
  expect_equal(fixed$term, c("(Intercept)", "week"))
  # Published: 251.405 and 10.467 with standard errors of 6.825 and 1.546.
  expect_equal(unname(lme4::fixef(by_lme4)), c(251.405, 10.467), tolerance = 1e-4)
  expect_true(all(abs(fixed$mean - lme4::fixef(by_lme4)) < 0.5 * fixed$sd))
  expect_equal(fixed$sd, c(6.825, 1.546), tolerance = 0.25)
  expect_true(all(fixed$lower < c(251.405, 10.467) & fixed$upper > c(251.405, 10.467)))

  own <- coef(by_lme4)$Subject[sub("subject ", "", answer$students$user_id), ]
  expect_equal(nrow(answer$students), 18)
  expect_lt(max(abs(answer$students$slope - own$Days)), 1.5)
  expect_gt(cor(answer$students$intercept, own[["(Intercept)"]]), 0.99)
  expect_true(all(answer$students$slope_lower < own$Days & answer$students$slope_upper > own$Days))

  metrics <- answer$fit_meta$metrics
  expect_equal(c(metrics$n, metrics$students, metrics$topics), c(180, 18, 1))
  expect_equal(metrics$divergences, 0)
  expect_lt(metrics$max_rhat, 1.05)
  expect_gt(metrics$min_ess, 100)
  expect_equal(metrics$sigma, 25.59, tolerance = 0.05)
  expect_match(answer$fit_meta$model_spec$priors$week, "normal\\(0, 19.56\\)")
  expect_match(answer$warnings, "one topic only", all = FALSE)
  expect_equal(answer$fit_meta$model_spec$formula, "score ~ week + (week | user_id)")
})

test_that("simulated learners in two topics are recovered", {
  truth <- simulated()
  answer <- growth(truth$rows, seed = 5L)
  expect_equal(answer$model_spec$formula, "score ~ week + (week | user_id) + (1 | topic_id)")
  week <- answer$fixed[2, ]
  expect_true(week$lower < 0.02 && week$upper > 0.02)
  students <- answer$students[order(answer$students$user_id), ]
  covered <- students$slope_lower < truth$own$slope & students$slope_upper > truth$own$slope
  # 19 of 20 are expected.
  expect_gte(sum(covered), 17)
  expect_gt(cor(students$slope, truth$own$slope), 0.8)
  expect_equal(answer$metrics$sigma, 0.1, tolerance = 0.1)
})

test_that("the same seed gives the same draws, in any order of the rows", {
  rows <- sleep_rows()
  first <- growth(rows, iterations = 400, seed = 5L)
  again <- growth(rows[rev(seq_len(nrow(rows))), ], iterations = 400, seed = 5L)
  expect_identical(again, first)
})

test_that("chains too short to agree are refused, with what to do", {
  error <- refused(growth(sleep_rows(), iterations = 100))
  expect_equal(error$status, 422L)
  expect_match(conditionMessage(error), "take more iterations")
})

test_that("divergences are refused however good the rest looks", {
  good <- list(divergences = 0, max_rhat = 1.01)
  expect_silent(refuse_growth(good))
  error <- refused(refuse_growth(modifyList(good, list(divergences = 3))))
  expect_equal(error$status, 422L)
  expect_match(conditionMessage(error), "3 transitions diverged")
  expect_equal(refused(refuse_growth(modifyList(good, list(max_rhat = 1.051))))$status, 422L)
  expect_equal(refused(refuse_growth(modifyList(good, list(max_rhat = NaN))))$status, 422L)
})

test_that("of more rows than max_observations whole learners are drawn, by the seed alone", {
  rows <- simulated()$rows
  drawn <- sample_students(rows, 170, seed = 1)
  expect_equal(as.vector(table(drawn$user_id)), rep(16, 10))
  again <- sample_students(rows[rev(seq_len(nrow(rows))), ], 170, seed = 1)
  expect_setequal(again$user_id, drawn$user_id)
  expect_false(setequal(sample_students(rows, 170, seed = 2)$user_id, drawn$user_id))
  expect_identical(sample_students(rows, 320, seed = 1), rows)
})

test_that("what cannot be fitted is refused with its reason", {
  rows <- simulated()$rows
  say <- function(rows, ...) {
    error <- refused(fit_growth(list(rows = rows, ...)))
    expect_equal(error$status, 400L)
    conditionMessage(error)
  }
  expect_match(say(rows[1:9, ]), "9 are too few; at least 10")
  expect_match(say(rows[rows$user_id <= "u02", ]), "2 learners are too few")
  expect_match(say(transform(rows, score = 0.5)), "score is 0.5 in every row")
  expect_match(say(transform(rows, week = 3)), "week is 3 in every row")
  expect_match(say(rows[!duplicated(rows$user_id), ]), "week is 0 in every row")
  expect_match(say(transform(rows, week = 0.5)), "whole number")
  expect_match(say(rows, chains = 1), "chains is 1")
  expect_match(say(rows[names(rows) != "topic_id"]), "column topic_id is missing")
  rows$score[7] <- Inf
  expect_match(say(rows), "row 7: score")
})
