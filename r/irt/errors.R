# Standard errors from the observed information: that of the complete data less what is lost
# because abilities are not seen, the posterior covariance of the learners' scores (Louis 1982,
# J. R. Statist. Soc. B 44, 226-233, eq. 3.2).

# Parameters, and work (nodes x answers a learner squared, summed), up to which the full matrix is
# made; beyond, each item's own block.
full_parameters <- 1500
full_work <- 5e9

responses_at_once <- 65536L

# Of (log a, b, logit c), (n_items, 3): 0 for what was fixed, NA where nothing is known; of the
# group's mean and log sd.
standard_errors <- function(fit, responses, model, priors, anchored) {
  free <- cbind(fit$free, fit$free, fit$free & model == "3PL")
  common_slope <- model == "1PL"
  complete <- observed_complete(fit$items, fit$moments)
  prior <- prior_curvature(fit$items, priors, free, common_slope)
  for (k in 1:3) complete[, k, k] <- complete[, k, k] + prior[, k]
  columns <- number_parameters(free, common_slope)
  answers <- tabulate(responses$learner) * if (model == "3PL") 3 else 2
  work <- length(fit$quadrature$nodes) * sum(as.numeric(answers)^2)
  if (max(columns, 0) <= full_parameters && work <= full_work) {
    return(from_matrix(fit, complete, columns, anchored))
  }
  blocks <- complete - lost_by_item(fit, responses)
  if (common_slope) {
    blocks[, 1, 2:3] <- blocks[, 2:3, 1] <- 0
    blocks[, 1, 1] <- sum(blocks[fit$free, 1, 1])
  }
  items <- t(vapply(seq_len(nrow(free)), function(i) {
    se <- numeric(3)
    own <- free[i, ]
    if (any(own)) se[own] <- root_of_inverse(blocks[i, own, own, drop = FALSE][1, , ])
    se
  }, numeric(3)))
  unknown <- if (anchored) NA_real_ else 0
  list(items = items, mean = unknown, log_sd = unknown, method = "observed_by_item")
}

# Numbers of the free parameters, (n_items, 3); 0 for fixed ones.
number_parameters <- function(free, common_slope) {
  columns <- matrix(0L, nrow(free), 3)
  columns[free] <- seq_len(sum(free))
  if (common_slope && any(free)) {
    columns[free[, 1], 1] <- 1L
    columns[free[, 2], 2] <- 1L + seq_len(sum(free[, 2]))
  }
  columns
}

prior_curvature <- function(items, priors, free, common_slope) {
  share <- if (common_slope) 1 / max(1, sum(free[, 1])) else 1
  weight <- priors$c_alpha + priors$c_beta - 2
  curvature <- cbind(rep(share / priors$log_a_sd^2, nrow(items)), 1 / priors$b_sd^2,
                     weight * items$c * (1 - items$c))
  curvature * free
}

# Negative second derivatives of the expected complete-data log-likelihood, (n_items, 3, 3).
observed_complete <- function(items, moments) {
  parts <- score_parts(items, moments$theta)
  score <- complete_data(items, moments)$score
  right <- moments$right
  wrong <- moments$wrong
  x <- items$a * outer(-items$b, moments$theta, `+`)
  rise <- plogis(x)
  fall <- 1 - rise
  # First derivatives of log P by x = a (theta - b) and by logit c; those of log Q are -rise, -c.
  by_x <- (1 - items$c) * rise * fall / parts$p
  by_c <- items$c * (1 - items$c) * fall / parts$p
  xx <- right * by_x * (1 - 2 * rise - by_x) - wrong * rise * fall
  cc <- right * by_c * (1 - 2 * items$c - by_c) - wrong * items$c * (1 - items$c)
  xc <- -right * by_x * (items$c + by_c)
  inner <- list(x, matrix(-items$a, nrow(x), ncol(x)))
  observed <- array(0, c(nrow(items), 3, 3))
  for (i in 1:3) for (j in seq_len(i)) {
    curved <- if (j == 3) cc else inner[[j]] * (if (i == 3) xc else xx * inner[[i]])
    observed[, i, j] <- observed[, j, i] <- -rowSums(curved)
  }
  # x bends in its own parameters: d2x / dlog a2 = x, d2x / dlog a db = -a.
  observed[, 1, 1] <- observed[, 1, 1] - score[, 1]
  observed[, 1, 2] <- observed[, 2, 1] <- observed[, 1, 2] - score[, 2]
  observed
}

# Score of each answer at the nodes, a (2 n_items, n_nodes) matrix a parameter: wrong, then right.
answer_scores <- function(items, theta) {
  parts <- score_parts(items, theta)
  lapply(parts$z, function(z) rbind(-parts$p * z, (1 - parts$p) * z))
}

# From the information of all parameters jointly, the group's two last where they are free.
from_matrix <- function(fit, complete, columns, anchored) {
  n <- max(columns)
  size <- n + if (anchored) 2L else 0L
  information <- matrix(0, size, size)
  for (i in 1:3) for (j in 1:3) {
    both <- which(columns[, i] > 0 & columns[, j] > 0)
    if (length(both) == 0) next
    at <- cbind(columns[both, i], columns[both, j])
    # The common slope's place comes once an item.
    sums <- rowsum(complete[cbind(both, i, j)], (at[, 2] - 1) * size + at[, 1])
    place <- as.integer(rownames(sums))
    information[place] <- information[place] + sums
  }
  if (anchored) {
    information[n + 1, n + 1] <- fit$quadrature$n_learners / fit$sd^2
    information[n + 2, n + 2] <- 2 * fit$quadrature$n_learners
  }
  information <- information - lost_jointly(fit, columns, size, anchored)
  se <- root_of_inverse(information)
  items <- matrix(c(0, se)[columns + 1], ncol = 3)
  list(items = items, mean = if (anchored) se[n + 1] else 0,
       log_sd = if (anchored) se[n + 2] else 0, method = "observed")
}

root_of_inverse <- function(information) {
  information <- as.matrix(information)
  inverse <- tryCatch(diag(solve(information + diag(1e-9, nrow(information)))),
                      error = function(e) rep(NA_real_, nrow(information)))
  ifelse(inverse > 0, sqrt(pmax(inverse, 0)), NA_real_)
}

# Sum over learners of the posterior covariance of their scores.
lost_jointly <- function(fit, columns, size, anchored) {
  quadrature <- fit$quadrature
  theta <- fit$moments$theta
  scores <- answer_scores(fit$items, theta)
  table <- log_probabilities(fit$items, theta)
  used <- which(colSums(columns) > 0)
  lost <- matrix(0, size, size)
  for (chunk in quadrature$chunks) {
    p <- posterior(quadrature, chunk, table)$p
    cells <- as(chunk, "TsparseMatrix")
    learner <- cells@i + 1L
    answer <- cells@j + 1L
    item <- (answer - 1L) %% nrow(columns) + 1L
    entries <- lapply(used, function(k) {
      kept <- which(columns[item, k] > 0)
      list(learner = learner[kept], column = columns[item[kept], k], answer = answer[kept],
           count = cells@x[kept], k = k)
    })
    i <- unlist(lapply(entries, `[[`, "learner"))
    j <- unlist(lapply(entries, `[[`, "column"))
    at_node <- function(q) {
      x <- unlist(lapply(entries, function(e) scores[[e$k]][e$answer, q] * e$count))
      s <- Matrix::sparseMatrix(i = i, j = j, x = x, dims = c(nrow(chunk), size))
      if (!anchored) return(s)
      z <- (theta[q] - fit$mean) / fit$sd
      s[, size - 1] <- z / fit$sd
      s[, size] <- z^2 - 1
      s
    }
    mean_score <- 0
    for (q in which(colSums(p) > 1e-12 * nrow(p))) {
      s <- at_node(q)
      lost <- lost + as.matrix(Matrix::crossprod(sqrt(p[, q]) * s))
      mean_score <- mean_score + p[, q] * s
    }
    lost <- lost - as.matrix(Matrix::crossprod(mean_score))
  }
  lost
}

# The same for each item alone, (n_items, 3, 3).
lost_by_item <- function(fit, responses) {
  moments <- fit$moments
  n_items <- nrow(fit$items)
  scores <- answer_scores(fit$items, moments$theta)
  counts <- rbind(moments$wrong, moments$right)
  lost <- array(0, c(n_items, 3, 3))
  for (k in 1:3) for (l in 1:3) {
    both <- rowSums(counts * scores[[k]] * scores[[l]])
    lost[, k, l] <- both[seq_len(n_items)] + both[n_items + seq_len(n_items)]
  }
  table <- log_probabilities(fit$items, moments$theta)
  for (chunk in fit$quadrature$chunks) {
    p <- posterior(fit$quadrature, chunk, table)$p
    cells <- as(chunk, "TsparseMatrix")
    for (first in seq(1L, length(cells@i), by = responses_at_once)) {
      rows <- first:min(length(cells@i), first + responses_at_once - 1L)
      weight <- p[cells@i[rows] + 1L, , drop = FALSE]
      answer <- cells@j[rows] + 1L
      item <- factor((answer - 1L) %% n_items + 1L, seq_len(n_items))
      means <- vapply(scores, function(s) rowSums(weight * s[answer, , drop = FALSE]),
                      numeric(length(rows)))
      means <- matrix(means, ncol = 3) * cells@x[rows]
      for (k in 1:3) for (l in 1:3) {
        lost[, k, l] <- lost[, k, l] - as.vector(tapply(means[, k] * means[, l], item, sum,
                                                        default = 0))
      }
    }
  }
  lost
}
