# A request's observations and items, checked.

slope_most <- 20
difficulty_most <- 50

# Learner x item cells above which OpenMx's wide matrix would not fit into 4 GiB.
most_cells <- 1.5e8

# Responses with learners and items numbered in the order in which they first appear.
read_responses <- function(request) {
  data <- read_rows(request, "observations", c("user_id", "item_id", "is_correct"))
  user <- text_column(data, "user_id")
  name <- text_column(data, "item_id")
  correct <- number_column(data, "is_correct", 0, 1, whole = TRUE)
  learners <- unique(user)
  items <- unique(name)
  list(
    learner = match(user, learners), item = match(name, items), correct = as.integer(correct),
    learners = learners, items = items
  )
}

# Parameters above which the square of all parameters that Newton's method wants of the priors
# would not.
most_parameters <- 8000

check_enough <- function(responses, model) {
  if (length(responses$learners) < 2) {
    bad_input("one learner alone cannot calibrate items; at least 2 are needed")
  }
  cells <- length(responses$learners) * length(responses$items)
  if (cells > most_cells) {
    bad_input(paste(
      "%d learners x %d items are %.0f million cells of which %.2g %% have an answer; this",
      "service takes %.0f million. Set MIRT_MAX_OBS or a shorter MIRT_LOOKBACK_DAYS, or use the",
      "embedded calibrator, which keeps such data sparse"
    ), length(responses$learners), length(responses$items), cells / 1e6,
    100 * length(responses$learner) / cells, most_cells / 1e6)
  }
  parameters <- length(responses$items) * if (model == "3PL") 3 else 2
  if (parameters > most_parameters) {
    bad_input(paste(
      "%d items have %d parameters; this service takes %d. Use the embedded calibrator"
    ), length(responses$items), parameters, most_parameters)
  }
}

# Item records [{item_id, params: {a, b, c}}] as a data frame item_id, a, b, c, one row an item.
read_items <- function(request, name) {
  records <- request[[name]]
  none <- data.frame(item_id = character(), a = numeric(), b = numeric(), c = numeric())
  if (is.null(records) || (is.list(records) && length(records) == 0)) return(none)
  if (!is.data.frame(records) || !is.data.frame(records$params)) {
    bad_input('%s must be a list of {"item_id": ..., "params": {"a": ..., "b": ..., "c": ...}}',
              name)
  }
  params <- records$params
  if (is.null(params$c)) params$c <- 0
  # An anchor that is not fixed is an item like others, whatever its parameters are.
  kept <- if (is.null(records$fixed)) rep(TRUE, nrow(records)) else !records$fixed %in% FALSE
  items <- list2DF(list(
    item_id = text_column(records, "item_id"), a = params$a %||% NA, b = params$b %||% NA,
    c = if (is.numeric(params$c)) ifelse(is.na(params$c), 0, params$c) else params$c
  ))[kept, ]
  # Of an item that is given twice, the last counts.
  items <- items[!duplicated(items$item_id, fromLast = TRUE), ]
  check_parameter(items, "a", function(a) a > 0 & a <= slope_most,
                  sprintf("it must be above 0 and at most %g", slope_most))
  check_parameter(items, "b", function(b) abs(b) <= difficulty_most,
                  sprintf("it must be from %g to %g", -difficulty_most, difficulty_most))
  check_parameter(items, "c", function(c) c >= 0 & c < 1, "it must be in [0, 1)")
  items
}

check_parameter <- function(items, name, allowed, rule) {
  values <- items[[name]]
  bad <- if (is.numeric(values)) which(!(is.finite(values) & allowed(values))) else seq_along(values)
  if (length(bad)) {
    bad_input("item '%s': item parameter %s is %s; %s", items$item_id[bad[1]], name,
              shown(values, bad[1]), rule)
  }
}
