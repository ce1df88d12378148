# Known answers: clusters planted far apart, found again from any order of the rows.
# Sourced before: lib/input.R, lib/answer.R, fit.R (see r/test.sh).

# `n` learners about each of three centers; the features have different units on purpose.
planted <- function(n = 30, seed = 3) {
  set.seed(seed)
  group <- rep(1:3, each = n)
  data.frame(
    user_id = sprintf("u%03d", seq_along(group)),
    accuracy = c(0.9, 0.6, 0.3)[group] + rnorm(3 * n, sd = 0.03),
    minutes = c(200, 900, 400)[group] + rnorm(3 * n, sd = 40)
  )
}

by_user <- function(answer) {
  table <- answer$segments
  stats::setNames(table$segment, table$user_id)[sort(table$user_id)]
}

refused <- function(request) expect_error(fit_segments(request), class = "refusal")

test_that("planted clusters are found, and named from the highest first feature down", {
  answer <- fit_segments(list(rows = planted()))
  expect_equal(unname(by_user(answer)), rep(c("A", "B", "C"), each = 30))
  expect_equal(answer$centers$segment, c("A", "B", "C"))
  expect_equal(answer$centers$size, c(30, 30, 30))
  expect_equal(answer$centers$accuracy, c(0.9, 0.6, 0.3), tolerance = 0.03)
  expect_equal(answer$centers$minutes, c(200, 900, 400), tolerance = 0.05)
  metrics <- answer$fit_meta$metrics
  expect_equal(metrics$k, 3)
  expect_gt(metrics$silhouette, 0.8)
  # Standardized: each feature's squares add up to n - 1.
  expect_equal(metrics$within + metrics$between, 2 * 89)
})

test_that("the silhouette finds the planted number of segments", {
  answer <- fit_segments(list(rows = planted(), k = "auto"))
  expect_equal(answer$fit_meta$metrics$k, 3)
  expect_equal(by_user(answer), by_user(fit_segments(list(rows = planted(), k = 3))))
})

test_that("rows in another order, and another seed, give the same segments", {
  rows <- planted()
  first <- fit_segments(list(rows = rows))
  for (seed in 1:5) {
    set.seed(seed)
    again <- fit_segments(list(rows = rows[sample(nrow(rows)), ], seed = seed))
    expect_equal(by_user(again), by_user(first))
  }
})

test_that("the answer is the same to the last digit for the same seed", {
  set.seed(5)
  noise <- data.frame(user_id = paste0("u", 1:200), x = rnorm(200), y = rnorm(200), z = rnorm(200))
  expect_identical(
    fit_segments(list(rows = noise, k = 4, seed = 9, run_id = "r")),
    fit_segments(list(rows = noise[200:1, ], k = 4, seed = 9, run_id = "r"))
  )
})

test_that("labels follow the previous centers, however these are named and ordered", {
  first <- fit_segments(list(rows = planted()))
  for (names in list(c("C", "A", "B"), c("B", "C", "A"), c("A", "C", "B"))) {
    previous <- transform(first$centers, segment = names)
    again <- fit_segments(list(
      rows = planted(seed = 4), previous_centers = previous[sample(3), ]
    ))
    expect_equal(unname(by_user(again)), rep(names, each = 30))
    expect_true(again$fit_meta$model_spec$matched_to_previous)
  }
})

test_that("a label is not given to the nearest alone: the total distance counts", {
  # Alone, both centers are nearest to A.
  centers <- matrix(c(1, 2.2))
  expect_equal(match_labels(centers, matrix(c(1.5, 0)), c("A", "B")), c("B", "A"))
})

test_that("with one segment more the old labels stay and the new one gets a new letter", {
  rows <- planted()
  two <- rows[rows$user_id <= "u060", ]
  first <- fit_segments(list(rows = two, k = 2))
  expect_equal(sort(unique(by_user(first))), c("A", "B"))
  again <- fit_segments(list(rows = rows, k = 3, previous_centers = first$centers))
  expect_equal(by_user(again)[names(by_user(first))], by_user(first))
  expect_equal(unname(by_user(again)[c("u061", "u090")]), c("C", "C"))
})

test_that("with one segment fewer the labels that remain keep their meaning", {
  rows <- planted()
  first <- fit_segments(list(rows = rows))
  again <- fit_segments(list(
    rows = rows[rows$user_id > "u030", ], k = 2, previous_centers = first$centers
  ))
  expect_equal(unname(by_user(again)), rep(c("B", "C"), each = 30))
})

test_that("distance is that to the learner's own center, in standard deviations", {
  rows <- planted()
  answer <- fit_segments(list(rows = rows))
  own <- answer$centers[match(answer$segments$segment, answer$centers$segment), ]
  expect_equal(
    answer$segments$distance,
    sqrt(((rows$accuracy - own$accuracy) / sd(rows$accuracy))^2 +
           ((rows$minutes - own$minutes) / sd(rows$minutes))^2)
  )
})

test_that("a constant column is left out and named", {
  answer <- fit_segments(list(rows = transform(planted(), grade = 7)))
  expect_equal(as.character(answer$warnings), "The column grade does not vary and was left out.")
  expect_equal(names(answer$centers), c("segment", "size", "accuracy", "minutes"))
})

test_that("many learners have their silhouette from a draw, close to the whole", {
  rows <- planted(n = 900)
  scaled <- scale(rows[c("accuracy", "minutes")])
  cluster <- cluster_scaled(scaled, 3, 1)$cluster
  whole <- mean(cluster::silhouette(cluster, dist(scaled))[, "sil_width"])
  expect_equal(mean_silhouette(scaled, cluster, 1), whole, tolerance = 0.01)
})

test_that("what cannot be segmented is refused with its reason", {
  rows <- planted()
  expect_match(conditionMessage(refused(list(rows = rows[1:9, ]))), "9 learners are too few")
  expect_match(conditionMessage(refused(list(rows = rows[c(1, 1:20), ]))),
               "u001 stands in the rows twice")
  expect_match(conditionMessage(refused(list(rows = transform(rows, accuracy = 1, minutes = 2)))),
               "no feature varies")
  expect_match(conditionMessage(refused(list(rows = rows, k = 9))), "k is 9")
  expect_match(conditionMessage(refused(list(rows = transform(rows, size = minutes)))),
               "called size")
  two_kinds <- data.frame(user_id = paste0("u", 1:12), x = rep(1:2, 6))
  expect_match(conditionMessage(refused(list(rows = two_kinds, k = 3))), "there are 2")
  rows$minutes[4] <- NA
  error <- refused(list(rows = rows))
  expect_equal(error$status, 400L)
  expect_match(conditionMessage(error), "row 4: minutes")
})
