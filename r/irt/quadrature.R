# Posteriors of learners over a grid of abilities. Learners are rows of a sparse matrix with a
# column for each (item, score), so that no dense learner x item matrix is made.

# The grid spans the group's mean +- this many standard deviations.
grid_limit <- 6

# Learners whose posteriors are held at once.
learners_at_once <- 16384L

# Half the number of nodes that `most` answers a learner need. The trapezoid rule errs by
# 2 exp(-2 (pi sd / step)^2) on a smooth peak: steps of 1.25 posterior sd leave 7e-6. An answer to
# a typical item informs by about .2.
half_grid <- function(responses) {
  most <- quantile(tabulate(responses$learner, length(responses$learners)), 0.95, names = FALSE)
  min(60, max(20, ceiling(grid_limit / 1.25 * sqrt(1 + 0.2 * most))))
}

# Responses arranged for `e_step`.
make_quadrature <- function(responses) {
  half <- half_grid(responses)
  nodes <- seq(-grid_limit, grid_limit, length.out = 2 * half + 1)
  weight <- dnorm(nodes)
  n_items <- length(responses$items)
  n_learners <- length(responses$learners)
  answers <- Matrix::sparseMatrix(
    i = responses$learner, j = responses$item + n_items * responses$correct, x = 1,
    dims = c(n_learners, 2L * n_items)
  )
  starts <- seq(1L, n_learners, by = learners_at_once)
  chunks <- lapply(starts, function(first) {
    answers[first:min(n_learners, first + learners_at_once - 1L), , drop = FALSE]
  })
  list(nodes = nodes, log_weight = log(weight / sum(weight)), chunks = chunks,
       n_items = n_items, n_learners = n_learners)
}

# Log-probabilities of the answers at abilities theta, (2 n_items, n_nodes): wrong, then right.
log_probabilities <- function(items, theta) {
  x <- items$a * outer(-items$b, theta, `+`)
  log_rise <- plogis(x, log.p = TRUE)
  wrong <- log1p(-items$c) + plogis(x, lower.tail = FALSE, log.p = TRUE)
  right <- if (any(items$c > 0)) log(items$c + (1 - items$c) * exp(log_rise)) else log_rise
  rbind(wrong, right)
}

# Posterior over the nodes (rows sum to 1) and log-likelihood of a chunk of learners.
posterior <- function(quadrature, chunk, table) {
  p <- as.matrix(chunk %*% table)
  p <- p + rep(quadrature$log_weight, each = nrow(p))
  top <- p[cbind(seq_len(nrow(p)), max.col(p, "first"))]
  p <- exp(p - top)
  total <- rowSums(p)
  list(p = p / total, loglik = sum(log(total)) + sum(top))
}

# What an E-step yields under a normal group: expected right and wrong answers of each item at
# each node, the learners' mean posterior, the log-likelihood, and EAP abilities.
e_step <- function(quadrature, items, mean = 0, sd = 1) {
  theta <- mean + sd * quadrature$nodes
  table <- log_probabilities(items, theta)
  counts <- matrix(0, nrow(table), ncol(table))
  share <- numeric(length(theta))
  loglik <- 0
  eap <- list()
  for (chunk in quadrature$chunks) {
    found <- posterior(quadrature, chunk, table)
    counts <- counts + as.matrix(Matrix::crossprod(chunk, found$p))
    share <- share + colSums(found$p)
    loglik <- loglik + found$loglik
    first <- as.vector(found$p %*% theta)
    spread <- as.vector(found$p %*% theta^2) - first^2
    eap <- c(eap, list(cbind(first, sqrt(pmax(spread, 1e-12)))))
  }
  eap <- do.call(rbind, eap)
  n <- quadrature$n_items
  list(
    theta = theta, wrong = counts[seq_len(n), , drop = FALSE],
    right = counts[n + seq_len(n), , drop = FALSE], share = share / quadrature$n_learners,
    n_learners = quadrature$n_learners, loglik = loglik, ability = eap[, 1], ability_se = eap[, 2]
  )
}

# Score of one answer u at the nodes: (u - P) z, for (log a, b, logit c); information
# P (1 - P) z z'.
score_parts <- function(items, theta) {
  x <- items$a * outer(-items$b, theta, `+`)
  rise <- plogis(x)
  p <- items$c + (1 - items$c) * rise
  by_x <- rise / p
  list(p = p, z = list(by_x * x, -by_x * items$a, items$c / p))
}

# Score (n_items, 3) and expected information (n_items, 3, 3) of the complete data.
complete_data <- function(items, moments) {
  parts <- score_parts(items, moments$theta)
  n <- moments$right + moments$wrong
  residual <- moments$right - n * parts$p
  weight <- n * parts$p * (1 - parts$p)
  score <- vapply(parts$z, function(z) rowSums(residual * z), numeric(nrow(n)))
  information <- array(0, c(nrow(n), 3, 3))
  for (i in 1:3) for (j in 1:3) {
    information[, i, j] <- rowSums(weight * parts$z[[i]] * parts$z[[j]])
  }
  list(score = matrix(score, ncol = 3), information = information)
}
