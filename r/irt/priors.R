# Weak priors that keep an extreme or hardly answered item from ruining itself: the same as the
# embedded calibrator's.

priors <- list(
  # Standard deviation of log a between items: 95 % of slopes within a factor 2.7.
  log_a_sd = 0.5,
  # Standard deviation of b between items (logits), three times the learners' own.
  b_sd = 3,
  # Beta prior of c: mode .2, with the weight of 20 answers by learners without a clue.
  c_alpha = 5,
  c_beta = 17,
  # Items' worth of belief that the means of log a and b are 0; matters with few items.
  centre_weight = 4
)

# No priors: plain maximum likelihood, to reproduce published estimates.
no_priors <- list(log_a_sd = Inf, b_sd = Inf, c_alpha = 1, c_beta = 1, centre_weight = 0)

# Prior means of log a and b: not assumed but estimated with the items (empirical Bayes), so that
# an item is drawn towards its kind. With one common slope that of log a is 0.
prior_means <- function(items, priors, common_slope) {
  if (is.infinite(priors$b_sd)) return(c(0, 0))
  n <- nrow(items) + priors$centre_weight
  c(if (common_slope) 0 else sum(log(items$a)) / n, sum(items$b) / n)
}

# First derivative of the log prior by (log a, b), (n_items, 2); the common slope's counts once.
prior_score <- function(items, priors, means, free, common_slope) {
  share <- if (common_slope) 1 / max(1, sum(free)) else 1
  score <- cbind(-share * (log(items$a) - means[1]) / priors$log_a_sd^2,
                 -(items$b - means[2]) / priors$b_sd^2)
  score[!free, ] <- 0
  score
}

# Where each item's prior is centred in the next fit, (n_items, 2).
#
# A group that is fixed at N(0, 1) would let the priors of many items outvote few learners about
# the unit of ability. In the embedded calibrator each step of the EM takes the group it finds as
# the unit; its fixed point is where the score of the items' parameters, prior included, is what
# that rescaling undoes: the complete-data information times T (f, g), f the shift and g the log
# scale of the group, T what they do to the parameters. Summed along T, where the likelihood does
# not change, this gives f and g; as a constant force on each item it is no more than another
# place for its prior.
prior_centres <- function(items, priors, moments, free, common_slope, anchored) {
  means <- prior_means(items, priors, common_slope)
  centres <- matrix(means, nrow(items), 2, byrow = TRUE)
  if (anchored || is.infinite(priors$b_sd)) return(centres)
  information <- observed_complete(items, moments)[, 1:2, 1:2, drop = FALSE]
  # The step that the rescaling undoes ends where the prior, too, is that much further on.
  share <- if (common_slope) 1 / max(1, sum(free)) else 1
  information[, 1, 1] <- information[, 1, 1] + share / priors$log_a_sd^2
  information[, 2, 2] <- information[, 2, 2] + 1 / priors$b_sd^2
  along <- array(0, c(nrow(items), 2, 2)) # item, parameter, (f, g)
  along[, 2, 1] <- 1
  along[, 1, 2] <- -1
  along[, 2, 2] <- items$b
  pushed <- array(0, dim(along)) # information times along
  for (i in 1:2) for (k in 1:2) {
    pushed[, i, k] <- information[, i, 1] * along[, 1, k] + information[, i, 2] * along[, 2, k]
  }
  score <- prior_score(items, priors, means, free, common_slope)
  left <- matrix(0, 2, 2)
  right <- numeric(2)
  for (k in 1:2) {
    right[k] <- sum(along[, , k] * score)
    for (l in 1:2) left[k, l] <- sum(along[, , k] * pushed[, , l])
  }
  group <- solve(left + diag(moments$n_learners * c(1, 2)), right)
  force <- pushed[, , 1] * group[1] + pushed[, , 2] * group[2]
  force <- matrix(force, ncol = 2)
  # One slope for all: its force is the sum, and its prior counts once.
  if (common_slope) force[, 1] <- sum(force[, 1])
  centres - force * rep(c(priors$log_a_sd, priors$b_sd)^2, each = nrow(items))
}
