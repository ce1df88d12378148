# The item response model in OpenMx: Bock and Aitkin's EM (mxExpectationBA81), with the priors as
# a second fit function beside the likelihood, and with fixed anchors a latent submodel for the
# group's mean and variance.

suppressPackageStartupMessages({
  library(OpenMx)
  library(rpf)
})

# As the embedded calibrator's: far outside any sensible item, so that a fit ends.
slope_limits <- c(0.02, 20)
logit_c_limits <- c(-7, 0.5)

# Start of c in the 3PL.
start_guessing <- 0.15

# How often the priors' centres are found anew.
most_rounds <- 30L

# Largest change of a centre (in prior standard deviations) with which they stand.
centre_tolerance <- 1e-3

# Fit items to responses.
#
# responses  learner, item (indices from 1), correct (0/1), learners, items (names)
# model      "1PL", "2PL" or "3PL"
# anchors    data frame item (index), a, b, c: held; may have no rows
# Returns items (a, b, c), mean, sd, moments (the last E-step), iterations, change, status.
fit_items <- function(responses, model, anchors, priors) {
  quadrature <- make_quadrature(responses)
  anchored <- nrow(anchors) > 0
  common_slope <- model == "1PL"
  free <- !seq_along(responses$items) %in% anchors$item
  start <- start_items(responses, model, anchors)
  at <- list(items = start$items, mean = start$shift, sd = 1)
  iterations <- 0L
  data <- wide_data(responses)
  unit <- rep(c(priors$log_a_sd, priors$b_sd), each = length(free))
  centres <- matrix(prior_means(at$items, priors, common_slope), length(free), 2, byrow = TRUE)
  last <- NULL
  for (round in seq_len(most_rounds)) {
    # The first centres are a guess, which deserves no more than a rough fit.
    at <- run_em(data, responses, model, at, free, anchored, priors, centres, quadrature,
                 if (round == 1 && is.finite(priors$b_sd)) 1e-6 else 1e-10)
    iterations <- iterations + at$cycles
    moments <- e_step(quadrature, at$items, at$mean, at$sd)
    found <- prior_centres(at$items, priors, moments, free, common_slope, anchored)
    step <- (found - centres) / unit
    moved <- if (is.finite(priors$b_sd)) max(abs(step)) else 0
    if (moved < centre_tolerance) break
    # Each step is about half of the one before (Aitken's extrapolation, every other round).
    ratio <- if (is.null(last)) 0 else sum(step * last) / sum(last^2)
    ratio <- min(0.8, max(0, ratio))
    centres <- found + step * unit * ratio / (1 - ratio)
    last <- if (is.null(last)) step
  }
  c(at[c("items", "mean", "sd", "status")],
    list(moments = moments, quadrature = quadrature, iterations = iterations, rounds = round,
         moved = moved, free = free, centres = centres))
}

# Unit slopes, difficulties from the proportions correct, anchors as given.
start_items <- function(responses, model, anchors) {
  n_items <- length(responses$items)
  n <- tabulate(responses$item, n_items)
  right <- tabulate(responses$item[responses$correct == 1], n_items)
  guess <- if (model == "3PL") start_guessing else 0
  p <- pmin(pmax(((right + 0.5) / (n + 1) - guess) / (1 - guess), 0.02), 0.98)
  items <- data.frame(a = 1, b = -1.2 * qlogis(p), c = guess)
  shift <- 0
  if (nrow(anchors)) {
    shift <- mean(anchors$b - items$b[anchors$item])
    items$b <- items$b + shift
    items[anchors$item, ] <- anchors[c("a", "b", "c")]
  }
  list(items = items, shift = shift)
}

# Learners x columns of factors. A learner's second answer to an item gets a column of its own,
# with the same parameters; `item` says whose column each is.
wide_data <- function(responses) {
  key <- (responses$learner - 1) * length(responses$items) + responses$item
  repeats <- if (anyDuplicated(key)) {
    ave(key, key, FUN = seq_along)
  } else {
    rep(1, length(key))
  }
  column <- (repeats - 1) * length(responses$items) + responses$item
  columns <- sort(unique(column))
  cells <- split(seq_along(column), factor(column, columns))
  n_learners <- length(responses$learners)
  wide <- lapply(cells, function(rows) {
    values <- rep(NA_integer_, n_learners)
    values[responses$learner[rows]] <- responses$correct[rows] + 1L
    structure(values, levels = c("0", "1"), class = c("mxFactor", "ordered", "factor"))
  })
  names(wide) <- paste0("x", seq_along(wide))
  list(wide = structure(wide, class = "data.frame", row.names = seq_len(n_learners)),
       item = as.integer((columns - 1) %% length(responses$items)) + 1L)
}

# One EM at fixed centres of the priors, from `at`, until -2 log-likelihood changes by less than
# `tolerance` of itself.
run_em <- function(data, responses, model, at, free, anchored, priors, centres, quadrature,
                   tolerance) {
  items <- at$items
  own <- seq_len(nrow(items))
  slope_label <- if (model == "1PL") rep("a", nrow(items)) else paste0("a", own)
  labels <- rbind(slope_label, paste0("d", own), paste0("g", own), NA)
  values <- rbind(items$a, -items$a * items$b, qlogis(items$c), Inf)
  is_free <- rbind(free, free, free & model == "3PL", FALSE)
  labels[!is_free] <- NA
  columns <- data$item
  names <- list(c("theta", "d", "g", "u"), names(data$wide))
  item <- mxMatrix(
    name = "item", nrow = 4, ncol = length(columns), values = values[, columns],
    free = is_free[, columns], labels = labels[, columns],
    lbound = matrix(c(slope_limits[1], NA, logit_c_limits[1], NA), 4, length(columns)),
    ubound = matrix(c(slope_limits[2], NA, logit_c_limits[2], NA), 4, length(columns)),
    dimnames = names
  )
  group <- if (anchored) "latent." else ""
  half <- (length(quadrature$nodes) - 1) / 2
  # The nodes of OpenMx are not moved with the group: they must reach it wherever it goes.
  reach <- if (anchored) abs(at$mean) + grid_limit * max(1.5, at$sd) else grid_limit
  irt <- mxModel(
    "irt", item, if (!anchored) group_matrices(0, 1, FALSE),
    mxData(data$wide, type = "raw", sort = FALSE),
    mxExpectationBA81(
      ItemSpec = rep(list(rpf.drm()), length(columns)), mean = paste0(group, "mean"),
      cov = paste0(group, "cov"), qwidth = reach,
      qpoints = 2 * ceiling(half * reach / grid_limit / min(1, at$sd)) + 1
    ),
    mxFitFunctionML()
  )
  with_priors <- is.finite(priors$b_sd) && any(free)
  steps <- list(if (any(free)) mxComputeNewtonRaphson(if (anchored) "irt.item" else NA_character_))
  if (anchored) {
    steps <- c(steps, mxComputeGradientDescent(c("latent.mean", "latent.cov"),
                                               fitfunction = "latent.fitfunction"))
  }
  top <- mxModel(
    "top", irt,
    if (anchored) latent_model(at$mean, at$sd),
    if (with_priors) prior_model(labels[, free, drop = FALSE], values[, free, drop = FALSE],
                                 centres[free, , drop = FALSE], priors, model),
    mxFitFunctionMultigroup(c("irt.fitfunction", if (with_priors) "prior.fitfunction")),
    mxComputeSequence(list(
      mxComputeEM("irt.expectation", "scores", mxComputeSequence(steps),
                  tolerance = tolerance),
      mxComputeOnce("fitfunction", "fit")
    ))
  )
  ran <- mxRun(top, silent = TRUE, suppressWarnings = TRUE)
  values <- ran$irt$item$values[, match(own, columns), drop = FALSE]
  a <- values[1, ]
  fitted <- data.frame(a = a, b = -values[2, ] / a, c = plogis(values[3, ]))
  fitted[!free, ] <- items[!free, ]
  list(
    items = fitted,
    mean = if (anchored) ran$latent$mean$values[1] else 0,
    sd = if (anchored) sqrt(ran$latent$cov$values[1]) else 1,
    cycles = ran$compute$steps[[1]]$output$EMcycles,
    status = ran$output$status$code
  )
}

group_matrices <- function(mean, sd, free) {
  list(
    mxMatrix(name = "mean", nrow = 1, ncol = 1, values = mean, free = free,
             labels = if (free) "group_mean" else NA, dimnames = list(NULL, "theta")),
    mxMatrix(name = "cov", type = "Symm", nrow = 1, ncol = 1, values = sd^2, free = free,
             labels = if (free) "group_variance" else NA, lbound = if (free) 1e-3 else NA,
             dimnames = list("theta", "theta"))
  )
}

# The group's mean and variance, from the learners' expected abilities of each E-step.
latent_model <- function(mean, sd) {
  mxModel(
    "latent", group_matrices(mean, sd, TRUE),
    mxDataDynamic("cov", expectation = "irt.expectation"),
    mxExpectationNormal(covariance = "cov", means = "mean"),
    mxFitFunctionML()
  )
}

# -2 log prior with its derivatives by the parameters as OpenMx has them, (a, d = -a b, logit c).
# The Hessian is given as its diagonal, since with the full one the items would no longer be separate
# blocks for Newton's method, and as it is at the start, since OpenMx makes a full matrix of it each
# time it changes. It only sets the length of steps.
prior_model <- function(labels, values, centres, priors, model) {
  n <- ncol(labels)
  common <- model == "1PL"
  row <- function(name, values) mxMatrix(name = name, nrow = 1, ncol = n, values = values)
  free_row <- function(name, i, items = seq_len(n), limits = c(NA, NA)) {
    mxMatrix(name = name, nrow = 1, ncol = length(items), values = values[i, items], free = TRUE,
             labels = labels[i, items], lbound = limits[1], ubound = limits[2])
  }
  parts <- list(
    # With one common slope its prior counts once, not once an item.
    row("wa", (if (common) 1 / n else 1) / priors$log_a_sd^2), row("wb", 1 / priors$b_sd^2),
    row("Ma", centres[, 1]), row("Mb", centres[, 2]), row("ones", 1),
    free_row("slope", 1, if (common) 1 else seq_len(n), slope_limits),
    if (common) mxAlgebra(slope %x% ones, name = "A") else mxAlgebra(slope * ones, name = "A"),
    free_row("D", 2),
    mxAlgebra(wa * (log(A) - Ma), name = "ra"),
    mxAlgebra(wb * (-D / A - Mb), name = "rb"),
    mxAlgebra(ra * (log(A) - Ma) + rb * (-D / A - Mb), name = "value_ab"),
    mxAlgebra((ra + rb * D / A) / A, name = "score_a"),
    mxAlgebra(-rb / A, name = "score_d")
  )
  a <- values[1, ]
  bend_a <- ((if (common) 1 / n else 1) / priors$log_a_sd^2 +
               (values[2, ] / a / priors$b_sd)^2) / a^2
  bend <- c(if (common) sum(bend_a) else bend_a, 1 / (priors$b_sd * a)^2)
  names <- c(unique(labels[1, ]), labels[2, ])
  terms <- c(if (common) "sum(score_a)" else "score_a", "score_d")
  value <- "sum(value_ab)"
  if (model == "3PL") {
    parts <- c(parts, list(
      free_row("G", 3, limits = logit_c_limits), row("c1", priors$c_alpha - 1),
      row("c2", priors$c_beta - 1),
      mxAlgebra(ones / (ones + exp(-G)), name = "C"),
      mxAlgebra((c1 + c2) * C - c1, name = "score_c")
    ))
    c <- plogis(values[3, ])
    bend <- c(bend, (priors$c_alpha + priors$c_beta - 2) * c * (1 - c))
    names <- c(names, labels[3, ])
    terms <- c(terms, "score_c")
    value <- "sum(value_ab) - 2 * sum(c1 * log(C) + c2 * log(ones - C))"
  }
  score <- sprintf("2 * cbind(%s)", paste(terms, collapse = ", "))
  mxModel(
    "prior", parts,
    mxMatrix(name = "bend", nrow = 1, ncol = length(bend), values = 2 * bend),
    mxAlgebraFromString(value, name = "value"),
    mxAlgebraFromString(score, name = "score", dimnames = list(NULL, names)),
    mxAlgebra(vec2diag(bend), name = "curvature", dimnames = list(names, names)),
    mxFitFunctionAlgebra("value", gradient = "score", hessian = "curvature")
  )
}
