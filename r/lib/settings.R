# Settings of a service, from the environment. A bad value ends the start with its name.

read_settings <- function(environment = Sys.getenv()) {
  get <- function(name, default) {
    # Of Sys.getenv()'s class, which is no text to JSON.
    value <- trimws(as.character(environment[name]))
    if (is.na(value) || !nzchar(value)) default else value
  }
  whole <- function(name, default, lower, upper) {
    value <- get(name, default)
    number <- suppressWarnings(as.numeric(value))
    if (is.na(number) || number != round(number) || number < lower || number > upper) {
      stop(sprintf("%s is %s; it must be a whole number from %d to %d",
                   name, dQuote(value, FALSE), lower, upper), call. = FALSE)
    }
    as.integer(number)
  }
  port <- get("R_SERVICE_PORT", NA)
  if (is.na(port)) {
    stop("R_SERVICE_PORT is not set; it is the port to listen on, for example 8001", call. = FALSE)
  }
  list(
    # Only this machine, unless told otherwise: in a container 0.0.0.0.
    host = get("R_SERVICE_HOST", "127.0.0.1"),
    port = whole("R_SERVICE_PORT", port, 1, 65535),
    # Bearer token that every request must carry; empty: the service is open.
    token = get("R_IRT_INTERNAL_TOKEN", ""),
    # Fits at once, each in a process of its own.
    workers = whole("R_SERVICE_WORKERS", 2, 1, 64),
    # Largest body, on the wire and after decompression.
    max_body_bytes = whole("R_SERVICE_MAX_BODY_MIB", 256, 1, 1900) * 2^20,
    # A fit that takes longer is ended, so that none holds a worker for ever.
    fit_timeout_s = whole("R_SERVICE_FIT_TIMEOUT_SECS", 1800, 1, 86400)
  )
}
