# The server that all services share. It reads no body's meaning and fits nothing: both are the
# workers', so that it always answers. Source it with chdir = TRUE.

source("settings.R")
source("workers.R")

lib_dir <- getwd()
service_version <- "0.1.0"

# Seconds after which a client that was turned away (429) is told to come back.
retry_after_s <- 10

# The largest body (bytes) that is read of a client without the token.
strangers_bytes <- 2^20

# Start a service and run until it is ended.
#
# name        as in logs and health, for example "irt"
# service_dir its folder; fit.R there has the functions that routes name
# routes      POST path -> name of a function of the decoded request that returns the answer
# packages    R packages that fit.R needs; what is missing is named before anything starts
# health      what GET /healthz says besides
serve <- function(name, service_dir, routes, packages = character(), health = list()) {
  require_packages(c("plumber", "promises", "later", "processx", "jsonlite", packages))
  settings <- read_settings()
  pool <- worker_pool(settings$workers, lib_dir, normalizePath(service_dir),
                      settings$fit_timeout_s)
  on.exit(pool$close())
  pool$warm_up()
  router <- make_router(name, routes, settings, pool, health)
  app <- list(
    call = function(req) if (is.null(req$turned_away)) router$call(req) else req$turned_away,
    onHeaders = function(req) at_headers(req, settings, pool),
    onWSOpen = function(ws) ws$close()
  )
  write_log(event = "started", service = name, host = settings$host, port = settings$port,
            workers = settings$workers, token = nzchar(settings$token))
  httpuv::runServer(settings$host, settings$port, app)
}

require_packages <- function(packages) {
  there <- vapply(packages, function(p) nzchar(system.file(package = p)), NA)
  missing <- packages[!there]
  if (length(missing)) {
    debian <- paste0("r-cran-", tolower(missing), collapse = " ")
    stop("R packages are missing: ", paste(missing, collapse = ", "),
         "; on Debian: apt-get install ", debian, call. = FALSE)
  }
}

make_router <- function(name, routes, settings, pool, health) {
  # Without plumber's own filters: they would read bodies and cookies.
  router <- plumber::Plumber$new(filters = list())
  router$setDocs(FALSE)
  options(plumber.methodNotAllowed = FALSE)
  router$handle("GET", "/healthz", function(req, res) {
    inside <- pool$inside()
    reply(req, res, 200L, c(list(
      status = "ok", service = name, version = service_version, fitting = inside,
      busy = inside > 0
    ), health))
  })
  for (path in names(routes)) {
    router$handle("POST", path, fit_handler(routes[[path]], settings, pool))
  }
  allowed <- c("/healthz" = "GET", vapply(routes, function(...) "POST", ""))
  router$set404Handler(function(req, res) {
    method <- allowed[req$PATH_INFO]
    if (is.na(method)) {
      return(refused(req, res, 404L, sprintf("there is no %s here", req$PATH_INFO)))
    }
    res$setHeader("Allow", unname(method))
    refused(req, res, 405L, sprintf("%s takes %s only", req$PATH_INFO, method))
  })
  router$setErrorHandler(function(req, res, error) {
    refused(req, res, 500L, "unexpected error in the server", detail = conditionMessage(error))
  })
  router
}

# What is answered before the body is read; NULL: nothing yet.
#
# A connection that is closed on bytes nobody read is reset, and the client may lose its answer. So a
# body is read even if it was refused already, unless it is far too large for that.
at_headers <- function(req, settings, pool) {
  answer <- turn_away(req, settings, pool)
  most <- if (isTRUE(answer$status == 401L)) strangers_bytes else 2 * settings$max_body_bytes
  size <- body_size(req)
  if (is.null(answer) || size == 0 || size > most) return(answer)
  req$turned_away <- answer
  NULL
}

# As the headers say: 0 without a body, Inf where it comes in chunks.
body_size <- function(req) {
  if (!is.null(req$HTTP_TRANSFER_ENCODING)) return(Inf)
  size <- suppressWarnings(as.numeric(req$CONTENT_LENGTH %||% "0"))
  if (is.na(size)) Inf else size
}

# What is refused on the strength of the request's headers alone; NULL: nothing.
turn_away <- function(req, settings, pool) {
  started(req)
  say <- function(status, error, headers = list()) {
    log_request(req, status, error = error)
    list(status = status, headers = c(list("Content-Type" = "application/json"), headers),
         body = failure(error))
  }
  if (nzchar(settings$token) && !same_text(req$HTTP_AUTHORIZATION %||% "",
                                           paste("Bearer", settings$token))) {
    return(say(401L, "the Bearer token is missing or not R_IRT_INTERNAL_TOKEN's"))
  }
  if (req$REQUEST_METHOD != "POST") return(NULL)
  size <- body_size(req)
  # One in chunks is measured when it is here.
  if (is.finite(size) && size > settings$max_body_bytes) {
    return(say(413L, sprintf("the body is too large: %.1f MiB, R_SERVICE_MAX_BODY_MIB is %g",
                             size / 2^20, settings$max_body_bytes / 2^20)))
  }
  if (pool$inside() >= 2 * settings$workers) {
    return(say(429L, sprintf("%d requests are being answered; come back later", pool$inside()),
               list("Retry-After" = as.character(retry_after_s))))
  }
  NULL
}

fit_handler <- function(handler, settings, pool) {
  force(handler)
  function(req, res) {
    encoding <- tolower(req$HTTP_CONTENT_ENCODING %||% "identity")
    if (!encoding %in% c("gzip", "identity")) {
      return(refused(req, res, 415L, sprintf(
        "Content-Encoding %s is not known; send gzip, or none", encoding
      )))
    }
    body <- req$rook.input$read()
    if (length(body) > settings$max_body_bytes) { # one sent in chunks has no length before
      return(refused(req, res, 413L, sprintf("the body is too large: above %g MiB",
                                             settings$max_body_bytes / 2^20)))
    }
    folder <- tempfile("job-")
    dir.create(folder, mode = "0700")
    writeBin(body, file.path(folder, "body"))
    saveRDS(list(handler = handler, gzipped = encoding == "gzip",
                 max_body_bytes = settings$max_body_bytes), file.path(folder, "job.rds"))
    promises::then(pool$submit(folder), function(outcome) {
      on.exit(unlink(folder, recursive = TRUE))
      if (!is.null(outcome$error)) {
        return(refused(req, res, outcome$status, outcome$error, rows = outcome$rows,
                       run_id = outcome$run_id, detail = outcome$detail))
      }
      answer <- file.path(folder, "answer")
      log_request(req, outcome$status, rows = outcome$rows, run_id = outcome$run_id)
      send(res, outcome$status, readBin(answer, "raw", file.size(answer)))
    })
  }
}

reply <- function(req, res, status, body) {
  log_request(req, status)
  send(res, status, jsonlite::toJSON(body, auto_unbox = TRUE))
}

refused <- function(req, res, status, error, ...) {
  log_request(req, status, error = error, ...)
  send(res, status, failure(error))
}

failure <- function(error) {
  as.character(jsonlite::toJSON(list(status = "failed", error = error), auto_unbox = TRUE))
}

send <- function(res, status, body) {
  res$status <- status
  res$setHeader("Content-Type", "application/json")
  res$body <- if (is.raw(body)) body else as.character(body)
  res
}

# In the same time wherever they differ.
same_text <- function(given, expected) {
  given <- charToRaw(given)
  expected <- charToRaw(expected)
  padded <- rep_len(c(given, raw(1)), length(expected))
  length(given) == length(expected) & !any(xor(padded, expected) != 0)
}

started <- function(req) req$started <- Sys.time()

# One line a request.
log_request <- function(req, status, rows = NULL, run_id = NULL, error = NULL, detail = NULL) {
  ms <- round(1000 * as.numeric(difftime(Sys.time(), req$started %||% Sys.time(), units = "secs")))
  known <- function(x) if (is.null(x) || is.na(x)) NULL else x
  write_log(method = req$REQUEST_METHOD, path = req$PATH_INFO, status = status, ms = ms,
            rows = known(rows), run_id = known(run_id), error = known(error),
            detail = known(detail))
}

write_log <- function(...) {
  fields <- c(list(time = format(Sys.time(), "%Y-%m-%dT%H:%M:%OS3Z", tz = "UTC")), list(...))
  fields <- fields[!vapply(fields, is.null, NA)]
  cat(jsonlite::toJSON(fields, auto_unbox = TRUE), "\n", sep = "", file = stderr())
}

`%||%` <- function(x, default) if (is.null(x)) default else x
