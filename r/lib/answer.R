# From a request's body to an answer's: the same for all services.

# `job`: handler (name of a function of the decoded request), gzipped, max_body_bytes.
# `folder`: has the body; the answer is written beside it.
# Returns status, error (NULL when it went well), rows, run_id.
do_job <- function(job, folder) {
  rows <- NA
  run_id <- NA
  tryCatch({
    request <- decode_body(file.path(folder, "body"), job$gzipped, job$max_body_bytes)
    unlink(file.path(folder, "body"))
    rows <- count_rows(request)
    if (is.character(request$run_id)) run_id <- request$run_id[1]
    set.seed(read_seed(request), "Mersenne-Twister", "Inversion", "Rejection")
    answer <- match.fun(job$handler)(request)
    rm(request)
    if (!is.null(answer$fit_meta$run_id)) run_id <- answer$fit_meta$run_id
    writeLines(encode(answer), file.path(folder, "answer"), sep = "", useBytes = TRUE)
    list(status = 200L, rows = rows, run_id = run_id)
  },
  refusal = function(e) {
    list(status = e$status, error = conditionMessage(e), rows = rows, run_id = run_id)
  },
  error = function(e) {
    said <- paste(c(deparse(conditionCall(e))[1], conditionMessage(e)), collapse = ": ")
    list(status = 500L, error = paste("unexpected error in the service:", conditionMessage(e)),
         detail = said, rows = rows, run_id = run_id)
  })
}

encode <- function(answer) {
  jsonlite::toJSON(answer, auto_unbox = TRUE, digits = NA, na = "null", null = "null",
                   dataframe = "rows", rownames = FALSE)
}

count_rows <- function(request) {
  for (name in c("observations", "rows", "series")) {
    data <- request[[name]]
    if (is.data.frame(data)) return(nrow(data))
    if (is.list(data) && length(data)) return(length(data[[1]]))
  }
  0L
}

# The body as R sees JSON: arrays of one kind as vectors, arrays of objects as data frames.
decode_body <- function(path, gzipped, max_body_bytes) {
  size <- file.size(path)
  if (gzipped) {
    magic <- readBin(path, "raw", 2)
    if (!identical(magic, as.raw(c(0x1f, 0x8b)))) {
      refuse(400L, "the body says Content-Encoding: gzip but is not gzip")
    }
    text <- gunzip(path, max_body_bytes)
  } else {
    text <- readBin(path, "raw", size)
  }
  text <- tryCatch(rawToChar(text), error = function(e) bad_input("the body is not JSON text"))
  Encoding(text) <- "UTF-8"
  if (!validUTF8(text)) bad_input("the body is not UTF-8")
  request <- tryCatch(
    # A data frame has no place for unnamed lists of pairs: matrices are not wanted.
    jsonlite::fromJSON(I(text), simplifyMatrix = FALSE),
    error = function(e) bad_input("the body is not JSON: %s", one_line(conditionMessage(e)))
  )
  if (!is.list(request) || is.null(names(request)) || is.data.frame(request)) {
    bad_input("the body must be a JSON object")
  }
  request
}

gunzip <- function(path, max_body_bytes) {
  file <- gzfile(path, "rb")
  on.exit(close(file))
  parts <- list()
  total <- 0
  repeat {
    part <- tryCatch(
      readBin(file, "raw", 2^24),
      warning = function(e) bad_input("the body's gzip is broken or cut off"),
      error = function(e) bad_input("the body's gzip is broken or cut off")
    )
    if (length(part) == 0) break
    total <- total + length(part)
    if (total > max_body_bytes) {
      refuse(413L, sprintf("the body is too large: above %g MiB once decompressed",
                           max_body_bytes / 2^20))
    }
    parts <- c(parts, list(part))
  }
  if (total == 0) bad_input("the body's gzip is broken or cut off")
  do.call(c, parts)
}

one_line <- function(text) substr(gsub("\\s+", " ", text), 1, 200)
