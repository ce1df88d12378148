# Item calibration and scoring: requests in, answers out. The contract is docs/http-contract.md.

source("quadrature.R")
source("priors.R")
source("model.R")
source("errors.R")
source("observations.R")

# Responses below which an item is flagged, whatever its standard errors say.
few_responses <- 30

# Standard error of a difficulty, times the slope, above which an item is flagged.
large_error <- 0.7

# Anchors below which the fit warns that its scale hangs on few items.
few_anchors <- 5

# Largest change that one more EM step may make in a converged fit.
converged_change <- 1e-3

# Item fit (root mean squared difference of observed and fitted curve) above which an item is
# counted as misfitting.
large_misfit <- 0.1

# POST /irt/calibrate
calibrate <- function(request) {
  run_id <- read_run_id(request, "irt")
  model <- request$model %||% "2PL"
  if (!identical(model, "1PL") && !identical(model, "2PL") && !identical(model, "3PL")) {
    bad_input("model '%s' is not known; it must be 1PL, 2PL or 3PL", as.character(model)[1])
  }
  # "none" is plain maximum likelihood, to compare with published estimates.
  chosen <- if (read_choice(request, "priors", c("weak", "none")) == "none") no_priors else priors
  responses <- read_responses(request)
  request$observations <- NULL
  anchors <- read_anchors(request, responses)
  check_enough(responses, model)
  fit <- fit_items(responses, model, anchors$used, chosen)
  errors <- standard_errors(fit, responses, model, chosen, nrow(anchors$used) > 0)
  items <- item_table(fit, errors, responses, model, run_id)
  list(
    status = "succeeded",
    item_params = item_records(items, model, run_id),
    abilities = abilities(responses, fit$moments),
    fit_meta = fit_meta(fit, errors, items, responses, model, anchors, chosen, run_id)
  )
}

# POST /irt/score: EAP under N(0, 1).
score <- function(request) {
  responses <- read_responses(request)
  known <- read_items(request, "item_params")
  at <- match(responses$items, known$item_id)
  if (anyNA(at)) {
    bad_input("%d of the answered items have no parameters in item_params, '%s' for one",
              sum(is.na(at)), responses$items[is.na(at)][1])
  }
  moments <- e_step(make_quadrature(responses), known[at, c("a", "b", "c")])
  list(status = "succeeded", abilities = abilities(responses, moments))
}

# The fixed anchors that have responses, by item index, and the names of those that have none.
read_anchors <- function(request, responses) {
  given <- read_items(request, "anchors")
  item <- match(given$item_id, responses$items)
  if (nrow(given) && all(is.na(item))) {
    bad_input(paste(
      "none of the %d fixed anchors has a response, so nothing ties this fit to their scale; send",
      "observations of anchors, or no anchors for a free fit"
    ), nrow(given))
  }
  used <- data.frame(item = item, given[c("a", "b", "c")])[!is.na(item), ]
  list(used = used, unused = given$item_id[is.na(item)])
}

# A row an item: estimates, standard errors, responses, flags, fit.
item_table <- function(fit, errors, responses, model, run_id) {
  items <- fit$items
  n_items <- nrow(items)
  items$item_id <- responses$items
  items$se_a <- items$a * errors$items[, 1]
  items$se_b <- errors$items[, 2]
  items$se_c <- items$c * (1 - items$c) * errors$items[, 3]
  items$n <- tabulate(responses$item, n_items)
  items$right <- tabulate(responses$item[responses$correct == 1L], n_items)
  items$rmsd <- item_fit(fit)
  # What the bound of the slope leaves of it is the optimiser's.
  at_bound <- items$a <= slope_limits[1] * 1.001 | items$a >= slope_limits[2] * 0.999 |
    abs(items$b) >= difficulty_most
  doubtful <- is.na(items$se_b) | items$a * items$se_b > large_error
  items$flags <- lapply(seq_len(n_items), function(i) {
    c(if (items$n[i] < few_responses) "few_responses",
      if (items$right[i] == items$n[i]) "all_right",
      if (items$right[i] == 0) "all_wrong",
      if (fit$free[i] && at_bound[i]) "at_bound",
      if (doubtful[i]) "large_error")
  })
  items$flags[!fit$free] <- list(NULL)
  items
}

# Root mean squared difference between the proportion right that the posteriors of those who
# answered imply at each ability and the fitted curve, weighted by where they are.
item_fit <- function(fit) {
  n <- fit$moments$right + fit$moments$wrong
  seen <- ifelse(n > 1e-9, fit$moments$right / n, 0)
  expected <- score_parts(fit$items, fit$moments$theta)$p
  sqrt(rowSums(ifelse(n > 1e-9, n * (seen - expected)^2, 0)) / rowSums(n))
}

item_records <- function(items, model, run_id) {
  lapply(seq_len(nrow(items)), function(i) {
    item <- items[i, ]
    list(
      item_id = item$item_id, params = as.list(item[c("a", "b", "c")]),
      se = list(a = item$se_a, b = item$se_b, c = item$se_c), model = model, version = run_id,
      n = item$n, flags = I(as.character(items$flags[[i]])), fit = list(rmsd = item$rmsd)
    )
  })
}

abilities <- function(responses, moments) {
  data.frame(user_id = responses$learners, theta = moments$ability, se = moments$ability_se)
}

fit_meta <- function(fit, errors, items, responses, model, anchors, priors, run_id) {
  change <- last_change(fit, model, priors)
  converged <- isTRUE(change < converged_change) && fit$moved < 0.01
  fixed <- sort(responses$items[anchors$used$item])
  warnings <- c(
    if (!converged) sprintf("The fit did not converge in %d steps.", fit$iterations),
    if (length(anchors$unused)) {
      sprintf("%d fixed anchors have no response and took no part.", length(anchors$unused))
    },
    if (length(fixed) > 0 && length(fixed) < few_anchors) {
      sprintf("The scale rests on %d fixed anchors only.", length(fixed))
    }
  )
  list(
    run_id = run_id,
    model_spec = list(
      model = model,
      metric = "logistic, D = 1, P = c + (1-c)/(1+exp(-a(theta-b)))",
      estimator = "marginal maximum a posteriori, EM (OpenMx, rpf)",
      versions = list(OpenMx = as.character(packageVersion("OpenMx")),
                      rpf = as.character(packageVersion("rpf"))),
      priors = list(
        log_a_sd = finite(priors$log_a_sd), b_sd = finite(priors$b_sd),
        c_beta = if (model == "3PL") c(priors$c_alpha, priors$c_beta) else NULL
      ),
      fixed_anchors = I(fixed),
      linking = if (length(fixed)) {
        "Anchors were fixed and the group's mean and sd free: 1 and 0 by construction."
      } else {
        "A free fit on its own scale, group N(0, 1): 1 and 0 mean not linked yet."
      }
    ),
    metrics = list(
      converged = converged, iterations = fit$iterations, change = change,
      loglik = fit$moments$loglik, n_learners = length(responses$learners),
      n_items = length(responses$items), n_responses = length(responses$learner),
      n_flagged = sum(lengths(items$flags) > 0),
      group = list(mean = fit$mean, sd = fit$sd, mean_se = errors$mean,
                   sd_se = fit$sd * errors$log_sd),
      se_method = errors$method,
      item_fit = list(rmsd_mean = mean(items$rmsd), rmsd_max = max(items$rmsd),
                      n_misfitting = sum(items$rmsd > large_misfit)),
      warnings = I(as.character(warnings))
    ),
    linking_constants = list(slope = 1, intercept = 0)
  )
}

finite <- function(x) if (is.finite(x)) x

# Largest change of log a and b (times a below 1) and of c that one more EM step would make.
last_change <- function(fit, model, priors) {
  items <- fit$items
  complete <- complete_data(items, fit$moments)
  share <- if (model == "1PL") 1 / max(1, sum(fit$free)) else 1
  score <- complete$score
  curvature <- vapply(1:3, function(k) complete$information[, k, k], numeric(nrow(items)))
  curvature <- matrix(curvature, ncol = 3)
  score[, 1:2] <- score[, 1:2] -
    cbind(share * (log(items$a) - fit$centres[, 1]) / priors$log_a_sd^2,
          (items$b - fit$centres[, 2]) / priors$b_sd^2)
  curvature[, 1:2] <- curvature[, 1:2] + rep(c(share / priors$log_a_sd^2, 1 / priors$b_sd^2),
                                             each = nrow(items))
  weight <- priors$c_alpha + priors$c_beta - 2
  score[, 3] <- score[, 3] + priors$c_alpha - 1 - weight * items$c
  curvature[, 3] <- curvature[, 3] + weight * items$c * (1 - items$c)
  free <- fit$free
  steps <- score / curvature
  if (model == "1PL") steps[, 1] <- sum(score[free, 1]) / sum(curvature[free, 1])
  steps[, 1:2] <- steps[, 1:2] * pmin(1, items$a)
  steps[, 3] <- if (model == "3PL") steps[, 3] * items$c * (1 - items$c) else 0
  if (any(free)) max(abs(steps[free, ])) else 0
}
