# Sourced before: lib/input.R, lib/answer.R, lib/settings.R (see r/test.sh).

test_that("settings are plain texts and numbers, which the log can write", {
  given <- c(R_SERVICE_HOST = "0.0.0.0", R_SERVICE_PORT = " 8001 ")
  before <- Sys.getenv(names(given), unset = NA, names = TRUE)
  on.exit({
    Sys.unsetenv(names(before)[is.na(before)])
    if (any(!is.na(before))) do.call(Sys.setenv, as.list(before[!is.na(before)]))
  })
  do.call(Sys.setenv, as.list(given))
  settings <- read_settings()
  expect_identical(settings$host, "0.0.0.0")
  expect_identical(settings$port, 8001L)
  expect_match(jsonlite::toJSON(settings, auto_unbox = TRUE), '"host":"0.0.0.0"', fixed = TRUE)
})

test_that("a setting that is empty or not there has its default; a wrong one is named", {
  settings <- read_settings(c(R_SERVICE_PORT = "1", R_SERVICE_HOST = " "))
  expect_identical(settings$host, "127.0.0.1")
  expect_identical(settings$workers, 2L)
  expect_error(read_settings(character()), "R_SERVICE_PORT is not set")
  expect_error(read_settings(c(R_SERVICE_PORT = "many")), 'R_SERVICE_PORT is "many"')
  expect_error(read_settings(c(R_SERVICE_PORT = "1", R_SERVICE_WORKERS = "0")),
               "R_SERVICE_WORKERS .* from 1 to 64")
})
