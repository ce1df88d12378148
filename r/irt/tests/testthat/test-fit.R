# Sourced before: lib/input.R, lib/answer.R, fit.R (see r/test.sh).

lsat6 <- function() {
  patterns <- rpf::LSAT6
  answers <- vapply(patterns[1:5], function(x) as.integer(as.character(x)), integer(nrow(patterns)))
  answers <- if (all(answers %in% 1:2)) answers - 1L else answers
  long_form(answers[rep(seq_len(nrow(answers)), patterns$Freq), ])
}

# A request's observations from a matrix of 0, 1 and NA.
long_form <- function(answers) {
  at <- which(!is.na(answers), arr.ind = TRUE)
  list(user_id = sprintf("u%04d", at[, 1]), item_id = paste0("q", at[, 2]),
       is_correct = as.integer(answers[at]))
}

simulate <- function(seed, n_learners, n_items, share = 1, mean = 0, sd = 1, c = 0) {
  set.seed(seed)
  theta <- rnorm(n_learners, mean, sd)
  a <- exp(rnorm(n_items, 0, 0.3))
  b <- rnorm(n_items)
  p <- c + (1 - c) * plogis(t(a * outer(-b, theta, `+`)))
  answers <- matrix(as.integer(runif(length(p)) < p), n_learners)
  answers[runif(length(answers)) > share] <- NA
  list(theta = theta, a = a, b = b, answers = answers)
}

request <- function(observations, ...) list(observations = observations, ...)

estimates <- function(answer) {
  items <- answer$item_params
  found <- data.frame(
    a = vapply(items, function(i) i$params$a, 0), b = vapply(items, function(i) i$params$b, 0),
    c = vapply(items, function(i) i$params$c, 0), se_a = vapply(items, function(i) i$se$a, 0),
    se_b = vapply(items, function(i) i$se$b, 0), row.names = vapply(items, `[[`, "", "item_id")
  )
  found[order(as.integer(sub("q", "", rownames(found)))), ]
}

test_that("LSAT6 without priors has the published estimates and standard errors", {
  answer <- calibrate(request(lsat6(), priors = "none"))
  found <- estimates(answer)
  expect_equal(found$a, c(0.8254, 0.7229, 0.8905, 0.6886, 0.6575), tolerance = 1e-3)
  expect_equal(-found$a * found$b, c(2.773, 0.990, 0.249, 1.285, 2.053), tolerance = 1e-3)
  expect_equal(answer$fit_meta$metrics$loglik, -2466.653, tolerance = 1e-6)
  # ltm's, as published
  expect_equal(found$se_a, c(0.2581, 0.1867, 0.2326, 0.1852, 0.2100), tolerance = 0.02)
  expect_equal(found$se_b, c(0.8669, 0.3073, 0.0997, 0.4341, 0.8700), tolerance = 0.02)
  expect_true(answer$fit_meta$metrics$converged)
})

test_that("the priors move LSAT6 by less than half a standard error", {
  plain <- estimates(calibrate(request(lsat6(), priors = "none")))
  weak <- estimates(calibrate(request(lsat6())))
  expect_true(all(abs(weak$a - plain$a) < 0.5 * plain$se_a))
  expect_true(all(abs(weak$b - plain$b) < 0.5 * plain$se_b))
  expect_false(isTRUE(all.equal(weak$a, plain$a, tolerance = 1e-3)))
})

test_that("sparse answers recover items and learners with honest errors", {
  truth <- simulate(3, 1000, 40, share = 0.5)
  answer <- calibrate(request(long_form(truth$answers)))
  found <- estimates(answer)
  expect_lt(sqrt(mean((found$a - truth$a)^2)), 0.2)
  expect_lt(sqrt(mean((found$b - truth$b)^2)), 0.2)
  expect_gt(mean(abs(found$b - truth$b) <= 1.96 * found$se_b), 0.85)
  expect_gt(mean(abs(found$a - truth$a) <= 1.96 * found$se_a), 0.85)
  theta <- answer$abilities$theta[match(sprintf("u%04d", 1:1000), answer$abilities$user_id)]
  expect_lt(sqrt(mean((theta - truth$theta)^2)), 0.55)
  expect_identical(answer$fit_meta$linking_constants, list(slope = 1, intercept = 0))
})

test_that("fixed anchors keep their parameters and free the group", {
  truth <- simulate(6, 2000, 20, mean = 0.5, sd = 1.2)
  anchors <- data.frame(item_id = paste0("q", 1:8))
  anchors$params <- data.frame(a = truth$a[1:8], b = truth$b[1:8])
  answer <- calibrate(request(long_form(truth$answers), anchors = anchors))
  found <- estimates(answer)
  group <- answer$fit_meta$metrics$group
  expect_equal(found$a[1:8], truth$a[1:8], tolerance = 1e-12)
  expect_equal(found$b[1:8], truth$b[1:8], tolerance = 1e-12)
  expect_identical(found$se_b[1:8], rep(0, 8))
  expect_lt(abs(group$mean - 0.5), 3 * group$mean_se)
  expect_lt(abs(group$sd - 1.2), 3 * group$sd_se)
  expect_lt(max(abs(found$b - truth$b) / pmax(found$se_b, 1e-9) * (found$se_b > 0)), 4)
  expect_match(answer$fit_meta$model_spec$linking, "by construction")
})

test_that("a 1PL fit has one slope, also beside anchors", {
  truth <- simulate(5, 500, 10)
  expect_length(unique(estimates(calibrate(request(long_form(truth$answers), model = "1PL")))$a), 1)
  anchors <- data.frame(item_id = paste0("q", 1:5))
  anchors$params <- data.frame(a = truth$a[1:5], b = truth$b[1:5], c = 0)
  both <- calibrate(request(long_form(truth$answers), model = "1PL", anchors = anchors))
  expect_length(unique(estimates(both)$a[6:10]), 1)
})

test_that("a 3PL fit recovers curves", {
  truth <- simulate(4, 2000, 15, c = 0.2)
  found <- estimates(calibrate(request(long_form(truth$answers), model = "3PL")))
  grid <- seq(-2, 2, 0.2)
  curve <- function(a, b, c) c + (1 - c) * plogis(a * outer(-b, grid, `+`))
  off <- curve(found$a, found$b, found$c) - curve(truth$a, truth$b, 0.2)
  expect_lt(sqrt(mean(off^2)), 0.03)
})

test_that("standard errors are those of the second derivatives, the group's included", {
  truth <- simulate(2, 400, 6, mean = 0.3, sd = 1.3)
  responses <- read_responses(request(long_form(truth$answers)))
  anchors <- data.frame(item = 1:2, a = truth$a[1:2], b = truth$b[1:2], c = 0)
  fit <- fit_items(responses, "2PL", anchors, no_priors)
  errors <- standard_errors(fit, responses, "2PL", no_priors, TRUE)
  at <- c(log(fit$items$a[3:6]), fit$items$b[3:6], fit$mean, log(fit$sd))
  loglik <- function(x) {
    items <- fit$items
    items$a[3:6] <- exp(x[1:4])
    items$b[3:6] <- x[5:8]
    e_step(fit$quadrature, items, x[9], exp(x[10]))$loglik
  }
  expected <- sqrt(diag(solve(-optimHess(at, loglik))))
  expect_equal(as.vector(errors$items[3:6, 1:2]), expected[1:8], tolerance = 0.01)
  expect_equal(c(errors$mean, errors$log_sd), expected[9:10], tolerance = 0.01)
})

test_that("each item's own block is close to the whole matrix", {
  truth <- simulate(7, 600, 12)
  responses <- read_responses(request(long_form(truth$answers)))
  fit <- fit_items(responses, "2PL", data.frame(item = integer(), a = 0[0], b = 0[0], c = 0[0]),
                   priors)
  whole <- standard_errors(fit, responses, "2PL", priors, FALSE)
  limit <- full_work
  full_work <<- 0
  by_item <- standard_errors(fit, responses, "2PL", priors, FALSE)
  full_work <<- limit
  expect_identical(c(whole$method, by_item$method), c("observed", "observed_by_item"))
  expect_equal(by_item$items, whole$items, tolerance = 0.15)
})

test_that("extreme and rare items end in finite estimates, are flagged and harm no others", {
  truth <- simulate(9, 400, 10)
  plain <- estimates(calibrate(request(long_form(truth$answers))))
  answers <- cbind(truth$answers, 1L, 0L, c(1L, 0L, 1L, rep(NA, 397)))
  answer <- calibrate(request(long_form(answers)))
  found <- estimates(answer)
  expect_true(all(is.finite(as.matrix(found))))
  expect_lt(found["q11", "b"], min(found$b[1:10]))
  expect_gt(found["q12", "b"], max(found$b[1:10]))
  expect_lt(max(abs(found$b[1:10] - plain$b)), 0.05)
  flags <- lapply(answer$item_params, function(i) as.character(i$flags))
  names(flags) <- vapply(answer$item_params, `[[`, "", "item_id")
  expect_true("all_right" %in% flags$q11)
  expect_true("all_wrong" %in% flags$q12)
  expect_true(all(c("few_responses", "large_error") %in% flags$q13))
})

test_that("an item answered backwards gets a flat curve", {
  truth <- simulate(10, 600, 12)
  truth$answers[, 3] <- as.integer(truth$theta < 0)
  found <- estimates(calibrate(request(long_form(truth$answers))))
  expect_lt(found$a[3], 0.35)
  expect_true(is.finite(found$b[3]))
})

test_that("a learner's repeated answers count each", {
  truth <- simulate(11, 200, 8)
  once <- long_form(truth$answers)
  twice <- lapply(once, function(x) c(x, x))
  one <- calibrate(request(once))
  two <- calibrate(request(twice))
  expect_identical(vapply(two$item_params, function(i) i$n, 0L), rep(400L, 8))
  expect_lt(mean(two$abilities$se), 0.85 * mean(one$abilities$se))
})

test_that("a misfitting item has the largest item fit", {
  truth <- simulate(12, 2000, 20)
  truth$answers[, 7] <- as.integer(runif(2000) < plogis(3 * (abs(truth$theta) - 1)))
  answer <- calibrate(request(long_form(truth$answers)))
  fits <- vapply(answer$item_params, function(i) i$fit$rmsd, 0)
  expect_identical(answer$item_params[[which.max(fits)]]$item_id, "q7")
  expect_gt(max(fits), 0.1)
  expect_identical(answer$fit_meta$metrics$item_fit$n_misfitting, 1L)
})

test_that("scores are exact for a pattern that can be computed by hand", {
  params <- data.frame(item_id = c("q1", "q2"))
  params$params <- data.frame(a = c(1, 2), b = c(0, 1), c = c(0, 0.2))
  answer <- score(list(
    observations = list(user_id = c("u", "u"), item_id = c("q1", "q2"), is_correct = c(1, 0)),
    item_params = params
  ))
  posterior <- function(t) dnorm(t) * plogis(t) * (1 - 0.2 - 0.8 * plogis(2 * (t - 1)))
  moment <- function(k) integrate(function(t) t^k * posterior(t), -8, 8, rel.tol = 1e-10)$value
  mean <- moment(1) / moment(0)
  expect_equal(answer$abilities$theta, mean, tolerance = 1e-5)
  expect_equal(answer$abilities$se, sqrt(moment(2) / moment(0) - mean^2), tolerance = 1e-5)
})

test_that("the same request gives the same estimates", {
  truth <- simulate(13, 200, 10)
  one <- calibrate(request(long_form(truth$answers)))
  two <- calibrate(request(long_form(truth$answers)))
  expect_equal(estimates(one), estimates(two), tolerance = 1e-8)
  expect_false(one$fit_meta$run_id == two$fit_meta$run_id)
})

test_that("what cannot be fitted is refused with a reason", {
  one <- function(...) list(user_id = "u", item_id = "i", is_correct = 1)
  two <- list(user_id = c("u", "v"), item_id = c("i", "i"), is_correct = c(1, 0))
  expect_error(calibrate(list()), "observations is missing", class = "refusal")
  expect_error(calibrate(request(list())), "observations are empty", class = "refusal")
  expect_error(calibrate(request(one())), "one learner alone", class = "refusal")
  expect_error(calibrate(request(two, model = "4PL")), "'4PL' is not known", class = "refusal")
  anchors <- data.frame(item_id = "j")
  anchors$params <- data.frame(a = 1, b = 0)
  expect_error(calibrate(request(two, anchors = anchors)), "none of the 1 fixed anchors",
               class = "refusal")
  anchors$item_id <- "i"
  anchors$params$a <- -1
  expect_error(calibrate(request(two, anchors = anchors)), "item 'i'.*a is -1", class = "refusal")
  expect_error(score(request(two, item_params = list())), "1 of the answered items",
               class = "refusal")
})

test_that("data too wide for memory are refused before anything is allocated", {
  responses <- list(learners = rep("u", 20000), items = rep("i", 20000), learner = 1:1e5)
  expect_error(check_enough(responses, "2PL"), "400 million cells", class = "refusal")
  responses <- list(learners = rep("u", 100), items = rep("i", 3000), learner = 1:1e5)
  expect_error(check_enough(responses, "3PL"), "9000 parameters; this service takes 8000",
               class = "refusal")
  expect_null(check_enough(responses, "2PL"))
})
