# Reading a request: every wrong value ends in a 400 with a reason a person understands.

# A refusal is an answer with this HTTP status; nothing is wrong with the service.
refuse <- function(status, message) {
  stop(structure(
    class = c("refusal", "error", "condition"),
    list(message = message, call = NULL, status = status)
  ))
}

# 400: the request cannot be fitted.
bad_input <- function(format, ...) refuse(400L, if (...length()) sprintf(format, ...) else format)

# 422: it was fitted, but the result must not be used.
unusable <- function(format, ...) refuse(422L, if (...length()) sprintf(format, ...) else format)

`%||%` <- function(x, default) if (is.null(x)) default else x

# The data frame under `name`, given as rows [{...}] or as columns {"a": [...]}; with `required`
# columns and at least `least` rows.
read_rows <- function(request, name = "rows", required = character(), least = 1L) {
  data <- request[[name]]
  if (is.null(data)) bad_input("%s is missing from the request", name)
  if (is.list(data) && length(data) == 0) bad_input("%s are empty; there is nothing to fit", name)
  if (!is.list(data) || is.null(names(data))) {
    bad_input("%s must be a list of objects, or an object of columns", name)
  }
  missing <- setdiff(required, names(data))
  if (length(missing)) bad_input("%s: the column %s is missing", name, missing[1])
  if (!is.data.frame(data)) {
    lengths <- lengths(data)[required]
    if (length(unique(lengths(data)[lengths(data) > 0])) > 1 || any(lengths != lengths[1])) {
      all <- lengths(data)
      bad_input("%s: the columns must have the same length; they have %s", name,
                paste(names(all), all, sep = ": ", collapse = ", "))
    }
    data <- list2DF(data[lengths(data) > 0])
  }
  if (nrow(data) == 0) bad_input("%s are empty; there is nothing to fit", name)
  if (nrow(data) < least) {
    bad_input("%s: %d are too few; at least %d are needed", name, nrow(data), least)
  }
  data
}

# A column of texts, none missing.
text_column <- function(data, column) {
  values <- data[[column]]
  if (is.null(values)) bad_input("the column %s is missing", column)
  bad <- if (is.character(values)) which(is.na(values) | !nzchar(values)) else 1L
  if (length(bad)) {
    bad_input("row %d: %s is %s; it must be a text that is not empty", bad[1], column,
              shown(values, bad[1]))
  }
  values
}

# A column of finite numbers, none missing, within bounds.
number_column <- function(data, column, lower = -Inf, upper = Inf, whole = FALSE) {
  values <- data[[column]]
  if (is.null(values)) bad_input("the column %s is missing", column)
  kind <- if (whole) "a whole number" else "a number"
  bounds <- if (is.finite(lower) && is.finite(upper)) {
    sprintf(" from %g to %g", lower, upper)
  } else if (is.finite(lower)) {
    sprintf(" of %g or more", lower)
  } else {
    ""
  }
  bad <- if (is.numeric(values) || is.logical(values)) {
    values <- as.numeric(values)
    wrong <- !is.finite(values) | values < lower | values > upper
    which(if (whole) wrong | values != round(values) else wrong)
  } else {
    1L
  }
  if (length(bad)) {
    bad_input("row %d: %s is %s; it must be %s%s", bad[1], column, shown(values, bad[1]), kind,
              bounds)
  }
  values
}

# A column of days, "YYYY-MM-DD".
date_column <- function(data, column) {
  values <- text_column(data, column)
  dates <- as.Date(values, format = "%Y-%m-%d")
  bad <- which(is.na(dates) | !grepl("^\\d{4}-\\d{2}-\\d{2}$", values))
  if (length(bad)) {
    bad_input("row %d: %s is %s; it must be a day, YYYY-MM-DD", bad[1], column,
              shown(values, bad[1]))
  }
  dates
}

# One number of the request itself, or its default.
read_number <- function(request, name, default, lower = -Inf, upper = Inf, whole = FALSE) {
  value <- request[[name]] %||% default
  ok <- is.numeric(value) && length(value) == 1 && is.finite(value) &&
    value >= lower && value <= upper && (!whole || value == round(value))
  if (!ok) {
    bad_input("%s is %s; it must be %s from %g to %g", name, shown(value, 1),
              if (whole) "a whole number" else "a number", lower, upper)
  }
  value
}

# One of `choices`; the first is the default.
read_choice <- function(request, name, choices) {
  value <- request[[name]] %||% choices[1]
  if (!is.character(value) || length(value) != 1 || !value %in% choices) {
    bad_input("%s is %s; it must be one of %s", name, shown(value, 1),
              paste(choices, collapse = ", "))
  }
  value
}

read_seed <- function(request) {
  as.integer(read_number(request, "seed", 1, 0, .Machine$integer.max, whole = TRUE))
}

# The request's run_id, or a new one.
read_run_id <- function(request, kind) {
  run_id <- request$run_id
  if (is.null(run_id)) {
    # Not from the seeded generator: two runs must not have the same id.
    return(paste0(kind, "-", random_hex(8)))
  }
  if (!is.character(run_id) || length(run_id) != 1 || is.na(run_id) || !nzchar(run_id)) {
    bad_input("run_id is %s; it must be a text that is not empty", shown(run_id, 1))
  }
  run_id
}

random_hex <- function(bytes) {
  random <- file("/dev/urandom", "rb", raw = TRUE)
  on.exit(close(random))
  paste(format(readBin(random, "raw", bytes)), collapse = "")
}

# Numeric covariates: every column but `except`; finite, none missing. Those that do not vary are
# dropped: list(data, warnings).
numeric_columns <- function(data, except) {
  names <- setdiff(names(data), except)
  columns <- lapply(stats::setNames(nm = names), function(name) number_column(data, name))
  constant <- vapply(columns, function(x) length(unique(x)) < 2, NA)
  list(
    data = list2DF(columns[!constant], nrow = nrow(data)),
    warnings = sprintf("The column %s does not vary and was left out.", names[constant])
  )
}

# The answer of a fit. `warnings` are sentences; `...` is what the kind adds.
fit_answer <- function(run_id, model_spec, metrics, warnings = character(), ...) {
  list(
    status = "ok",
    fit_meta = list(run_id = run_id, model_spec = model_spec, metrics = metrics),
    warnings = I(as.character(warnings)),
    ...
  )
}

shown <- function(values, i) {
  if (is.null(values) || length(values) < i) return("missing")
  value <- values[[i]]
  if (is.null(value) || (length(value) == 1 && is.na(value))) return("missing or not a number")
  if (is.character(value)) return(dQuote(substr(value[1], 1, 60), FALSE))
  if (is.list(value)) return("an object or a list")
  format(value[1], digits = 15)
}
