# Sourced before: lib/input.R, lib/answer.R, lib/settings.R (see r/test.sh).

refused <- function(code, told, status = 400L) {
  error <- tryCatch(code, refusal = identity)
  expect_s3_class(error, "refusal")
  expect_identical(error$status, status)
  expect_match(conditionMessage(error), told)
}

decoded <- function(text) jsonlite::fromJSON(I(text), simplifyMatrix = FALSE)

test_that("rows and columns are read alike", {
  rows <- decoded('{"rows": [{"user_id": "a", "x": 1}, {"user_id": "b", "x": 2.5}]}')
  columns <- decoded('{"rows": {"user_id": ["a", "b"], "x": [1, 2.5]}}')
  expect_equal(as.list(read_rows(rows, "rows", c("user_id", "x"))),
               as.list(read_rows(columns, "rows", c("user_id", "x"))))
})

test_that("rows that are missing, empty, too few, ragged or of another kind are refused", {
  refused(read_rows(list()), "rows is missing from the request")
  refused(read_rows(decoded('{"rows": []}')), "rows are empty")
  refused(read_rows(decoded('{"rows": [1, 2]}')), "must be a list of objects")
  refused(read_rows(decoded('{"rows": "x"}')), "must be a list of objects")
  refused(read_rows(decoded('{"rows": [{"a": 1}]}'), "rows", "b"), "the column b is missing")
  refused(read_rows(decoded('{"rows": [{"a": 1}]}'), "rows", "a", 5), "1 are too few; at least 5")
  refused(read_rows(decoded('{"rows": {"a": [1, 2], "b": [1]}}'), "rows", c("a", "b")),
          "same length; they have a: 2, b: 1")
})

test_that("a wrong value is named by row, column and value", {
  data <- data.frame(user_id = c("a", NA), x = c(1, Inf), n = c(1, 1.5), day = c("2026-01-05", "5.1."))
  refused(text_column(data, "user_id"), "row 2: user_id is missing")
  refused(text_column(data, "x"), "row 1: x is 1; it must be a text")
  refused(number_column(data, "x"), "row 2: x is Inf; it must be a number")
  refused(number_column(data, "user_id"), 'row 1: user_id is "a"; it must be a number')
  refused(number_column(data, "n", 0, 1), "row 2: n is 1.5; it must be a number from 0 to 1")
  refused(number_column(data, "n", whole = TRUE), "row 2: n is 1.5; it must be a whole number")
  refused(number_column(data, "z"), "the column z is missing")
  refused(date_column(data, "day"), 'row 2: day is "5.1."; it must be a day')
  expect_identical(number_column(data, "n", 0), c(1, 1.5))
})

test_that("constant columns are left out with a warning", {
  data <- data.frame(user_id = c("a", "b"), x = c(1, 2), y = c(3, 3))
  found <- numeric_columns(data, "user_id")
  expect_identical(names(found$data), "x")
  expect_identical(found$warnings, "The column y does not vary and was left out.")
})

test_that("options have defaults and limits", {
  expect_identical(read_number(list(), "k", 3), 3)
  refused(read_number(list(k = 1.5), "k", 3, 1, 9, whole = TRUE), "k is 1.5; it must be a whole")
  refused(read_number(list(k = "x"), "k", 3, 1, 9), 'k is "x"; it must be a number from 1 to 9')
  expect_identical(read_choice(list(), "m", c("a", "b")), "a")
  refused(read_choice(list(m = "c"), "m", c("a", "b")), 'm is "c"; it must be one of a, b')
  expect_identical(read_seed(list()), 1L)
  refused(read_run_id(list(run_id = 7), "irt"), "run_id is 7")
  expect_identical(read_run_id(list(run_id = "r"), "irt"), "r")
  set.seed(1); one <- read_run_id(list(), "irt")
  set.seed(1); two <- read_run_id(list(), "irt")
  expect_match(one, "^irt-[0-9a-f]{16}$")
  expect_false(one == two)
})

in_folder <- function(body, handler, gzipped = FALSE, limit = 1e6) {
  folder <- tempfile()
  dir.create(folder)
  writeBin(body, file.path(folder, "body"))
  assign("handler_under_test", handler, globalenv())
  outcome <- do_job(list(handler = "handler_under_test", gzipped = gzipped,
                         max_body_bytes = limit), folder)
  answer <- file.path(folder, "answer")
  c(outcome, list(answer = if (file.exists(answer)) readLines(answer, warn = FALSE)))
}

test_that("a job ends in an answer, a refusal or an error, never in an R error", {
  body <- charToRaw('{"rows": [{"x": 1}, {"x": 2}], "run_id": "r1", "seed": 5}')
  fine <- in_folder(body, function(request) {
    fit_answer("r1", list(), list(x = NA, y = Inf), draws = data.frame(d = runif(1)))
  })
  expect_identical(fine$status, 200L)
  expect_identical(c(fine$rows, fine$run_id), c("2", "r1"))
  expect_match(fine$answer, '"metrics":{"x":null,"y":null}', fixed = TRUE)
  expect_match(fine$answer, '"warnings":[]', fixed = TRUE)
  again <- in_folder(body, function(request) fit_answer("r1", list(), list(), d = runif(1)))
  seeded <- jsonlite::fromJSON(fine$answer)$draws$d
  expect_equal(jsonlite::fromJSON(again$answer)$d, seeded)
  told <- in_folder(body, function(request) unusable("%d divergences", 3))
  expect_identical(c(told$status, told$error), c("422", "3 divergences"))
  bug <- in_folder(body, function(request) stop("oh"))
  expect_identical(bug$status, 500L)
  expect_match(bug$error, "unexpected error in the service: oh")
})

test_that("bodies are decompressed within limits, and what is no JSON object is refused", {
  body <- charToRaw('{"rows": [{"x": 1}]}')
  path <- tempfile()
  file <- gzfile(path, "wb")
  writeBin(c(body, charToRaw(strrep(" ", 1e5))), file)
  close(file)
  packed <- readBin(path, "raw", file.size(path))
  answer <- function(request) fit_answer("r", list(), list())
  expect_identical(in_folder(packed, answer, gzipped = TRUE)$status, 200L)
  expect_identical(in_folder(packed, answer, gzipped = TRUE, limit = 1e4)$status, 413L)
  expect_identical(in_folder(packed[1:40], answer, gzipped = TRUE)$status, 400L)
  expect_match(in_folder(body, answer, gzipped = TRUE)$error, "not gzip")
  for (bad in c("[1]", "", "{", "7", '{"a": NaN}', '"x"', "[{\"a\": 1}]")) {
    expect_identical(in_folder(charToRaw(bad), answer)$status, 400L)
  }
  expect_identical(in_folder(as.raw(c(0x7b, 0, 0x7d)), answer)$status, 400L)
  expect_identical(in_folder(as.raw(c(0x22, 0xff, 0x22)), answer)$status, 400L)
})

test_that("a wrong setting is named with what is allowed", {
  expect_error(read_settings(c(HOME = "/")), "R_SERVICE_PORT is not set")
  expect_error(read_settings(c(R_SERVICE_PORT = "x")), 'R_SERVICE_PORT is "x"; it must be a whole')
  expect_error(read_settings(c(R_SERVICE_PORT = "8000", R_SERVICE_WORKERS = "0")),
               "R_SERVICE_WORKERS .* from 1 to 64")
  found <- read_settings(c(R_SERVICE_PORT = "8000", R_IRT_INTERNAL_TOKEN = " t "))
  expect_identical(found$host, "127.0.0.1")
  expect_identical(found$token, "t")
  expect_identical(found$workers, 2L)
})
