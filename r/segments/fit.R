# Segments of learners: k-means on standardized features, labels that stay the same from run to run.

# Fewer learners make no groups.
fewest_learners <- 10L
# More segments have no use; and every way of matching this many labels can be looked at.
most_segments <- 8L
# k that "auto" chooses from.
auto_k <- 2:6
# Starts of k-means; the best is kept.
starts <- 25L
# Learners that silhouettes are computed from at most: they need all distances between them.
silhouette_learners <- 2000L

# The answer to POST /segments/fit.
fit_segments <- function(request) {
  rows <- read_rows(request, "rows", "user_id")
  users <- text_column(rows, "user_id")
  features <- numeric_columns(rows, except = "user_id")
  fit <- segment_learners(
    users, features$data, read_k(request), read_previous(request), read_seed(request)
  )
  fit_answer(
    read_run_id(request, "segments"), fit$model_spec, fit$metrics,
    c(features$warnings, fit$warnings), segments = fit$segments, centers = fit$centers
  )
}

# "auto", or a number.
read_k <- function(request) {
  if (identical(request$k, "auto")) return("auto")
  read_number(request, "k", 3, 2, most_segments, whole = TRUE)
}

read_previous <- function(request) {
  if (length(request$previous_centers) == 0) return(NULL)
  previous <- read_rows(request, "previous_centers", "segment")
  labels <- text_column(previous, "segment")
  if (anyDuplicated(labels) || !all(labels %in% LETTERS[seq_len(most_segments)])) {
    bad_input("previous_centers: segment must be different letters from A to %s",
              LETTERS[most_segments])
  }
  columns <- setdiff(names(previous), c("segment", "size"))
  columns <- lapply(stats::setNames(nm = columns), function(name) number_column(previous, name))
  data.frame(segment = labels, columns, check.names = FALSE)
}

# Pure: features (a data frame of numbers, none constant) of `users` in, segments out.
# `k`: a number or "auto"; `previous`: segment and centers of an earlier run, or NULL.
segment_learners <- function(users, features, k = 3, previous = NULL, seed = 1L) {
  check_features(users, features)
  # k-means starts from rows: in one order, so that the same learners give the same segments.
  by_user <- order(users, method = "radix")
  users <- users[by_user]
  features <- features[by_user, , drop = FALSE]
  scaled <- scale(features)
  different <- nrow(unique(scaled))
  warnings <- character()
  if (identical(k, "auto")) {
    k <- best_k(scaled, auto_k[auto_k < different], seed)
  }
  if (k > different) {
    bad_input("%d segments need as many different learners; there are %d", k, different)
  }
  fit <- cluster_scaled(scaled, k, seed)

  centers <- sweep(sweep(fit$centers, 2, attr(scaled, "scaled:scale"), "*"), 2,
                   attr(scaled, "scaled:center"), "+")
  shared <- intersect(setdiff(names(previous), "segment"), names(features))
  if (!is.null(previous) && length(shared) == 0) {
    warnings <- c(warnings, paste(
      "previous_centers have no feature in common with this run; labels were given anew."
    ))
  }
  labels <- if (length(shared)) {
    spread <- attr(scaled, "scaled:scale")[shared]
    match_labels(
      sweep(centers[, shared, drop = FALSE], 2, spread, "/"),
      sweep(as.matrix(previous[shared]), 2, spread, "/"),
      previous$segment
    )
  } else {
    LETTERS[rank(-centers[, 1], ties.method = "first")]
  }

  by_label <- order(labels)
  distance <- sqrt(rowSums((scaled - fit$centers[fit$cluster, , drop = FALSE])^2))
  list(
    segments = data.frame(
      user_id = users, segment = labels[fit$cluster], distance = distance, row.names = NULL
    ),
    centers = data.frame(
      segment = labels[by_label], size = fit$size[by_label], centers[by_label, , drop = FALSE],
      row.names = NULL, check.names = FALSE
    ),
    metrics = list(
      k = as.integer(k), silhouette = mean_silhouette(scaled, fit$cluster, seed),
      within = fit$tot.withinss, between = fit$betweenss
    ),
    warnings = warnings,
    model_spec = list(
      method = "k-means (Hartigan-Wong) on standardized features", package = "stats",
      version = as.character(getRversion()), features = I(names(features)),
      starts = starts, seed = seed, matched_to_previous = length(shared) > 0
    )
  )
}

check_features <- function(users, features) {
  if (length(users) < fewest_learners) {
    bad_input("%d learners are too few for segments; at least %d are needed", length(users),
              fewest_learners)
  }
  twice <- users[duplicated(users)]
  if (length(twice)) bad_input("the learner %s stands in the rows twice", twice[1])
  if (ncol(features) == 0) {
    bad_input("no feature varies between learners; there is nothing to segment by")
  }
  reserved <- intersect(names(features), c("segment", "size", "distance"))
  if (length(reserved)) {
    bad_input("a feature must not be called %s: the answer uses that name", reserved[1])
  }
}

cluster_scaled <- function(scaled, k, seed) {
  # Its own seed for each k: the answer for k = 3 is the same by setting and by silhouette.
  set.seed(seed)
  # Its warning is of one start that stopped early; the best of all starts is kept.
  suppressWarnings(stats::kmeans(scaled, k, iter.max = 100, nstart = starts))
}

best_k <- function(scaled, choices, seed) {
  if (length(choices) == 0) bad_input("learners differ too little to be segmented")
  widths <- vapply(choices, function(k) {
    mean_silhouette(scaled, cluster_scaled(scaled, k, seed)$cluster, seed)
  }, 0)
  choices[which.max(widths)]
}

# Mean silhouette width, from -1 to 1: how much nearer learners are to their own segment than to
# the next one. Of a draw of learners where there are many; 0 where the draw holds one segment.
mean_silhouette <- function(scaled, cluster, seed) {
  if (nrow(scaled) > silhouette_learners) {
    set.seed(seed)
    drawn <- sample(nrow(scaled), silhouette_learners)
    scaled <- scaled[drawn, , drop = FALSE]
    cluster <- cluster[drawn]
  }
  # Numbered without gaps, as silhouette() wants them.
  cluster <- match(cluster, sort(unique(cluster)))
  if (max(cluster) < 2) return(0)
  mean(cluster::silhouette(cluster, stats::dist(scaled))[, "sil_width"])
}

# Labels for `centers` such that their total distance to the `previous` ones is smallest. A segment
# that has no previous one gets the first letter that was not in use.
match_labels <- function(centers, previous, labels) {
  k <- nrow(centers)
  n <- max(k, nrow(previous))
  cost <- matrix(0, n, n)
  for (i in seq_len(k)) {
    for (j in seq_len(nrow(previous))) cost[i, j] <- sqrt(sum((centers[i, ] - previous[j, ])^2))
  }
  ways <- permutations(n)
  total <- Reduce(`+`, lapply(seq_len(n), function(i) cost[i, ways[, i]]))
  best <- ways[which.min(total), seq_len(k)]
  new <- setdiff(LETTERS, labels)
  c(labels, new[seq_len(max(0, n - length(labels)))])[best]
}

# All orders of 1..n, one a row.
permutations <- function(n) {
  if (n == 1) return(matrix(1L))
  smaller <- permutations(n - 1)
  do.call(rbind, lapply(seq_len(n), function(first) {
    cbind(first, smaller + (smaller >= first), deparse.level = 0)
  }))
}
