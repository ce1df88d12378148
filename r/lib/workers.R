# Fits run in worker processes, so that the server always answers.
#
# A worker is one R process that loads the service's fit.R, waits, does one fit and ends: what that
# took of memory is given back, and one that is killed takes nothing with it. `size` workers are
# kept, loaded in advance.

# A request that was refused before anything was fitted leaves its worker as good as new.
used_again <- function(outcome) outcome$status %in% c(400L, 413L)

# How often (s) a running fit is looked at.
poll_interval_s <- 0.02

# `lib_dir` and `service_dir`: where worker.R and fit.R are. Threads are shared out so that
# `size` fits at once do not get in each other's way.
worker_pool <- function(size, lib_dir, service_dir, timeout_s) {
  idle <- list()
  busy <- list()
  queue <- list()
  ticking <- FALSE
  threads <- as.character(max(1L, parallel::detectCores() %/% size))

  start_worker <- function() {
    stderr <- tempfile("worker-")
    process <- processx::process$new(
      file.path(R.home("bin"), "Rscript"),
      c("--vanilla", file.path(lib_dir, "worker.R"), service_dir),
      stdin = "|", stdout = "|", stderr = stderr,
      # Ended with the server, even where that is killed.
      supervise = TRUE,
      env = c("current", OMP_NUM_THREADS = threads, OPENBLAS_NUM_THREADS = threads)
    )
    list(process = process, stderr = stderr)
  }

  end_worker <- function(worker) {
    worker$process$kill()
    unlink(worker$stderr)
  }

  # The server makes sure of one worker before it listens: a missing package shows here.
  warm_up <- function() {
    worker <- start_worker()
    until <- Sys.time() + 120
    while (worker$process$is_alive() && Sys.time() < until) {
      worker$process$poll_io(200)
      if (any(worker$process$read_output_lines() == "ready")) {
        idle <<- list(worker)
        fill()
        return(invisible(TRUE))
      }
    }
    said <- last_words(worker)
    end_worker(worker)
    stop("the service cannot start: ", said, call. = FALSE)
  }

  last_words <- function(worker) {
    lines <- tryCatch(readLines(worker$stderr, warn = FALSE), error = function(e) character())
    lines <- trimws(tail(lines[nzchar(lines)], 5))
    if (length(lines)) paste(lines, collapse = " ") else "it said nothing"
  }

  fill <- function() {
    while (length(idle) + length(busy) < size) idle <<- c(idle, list(start_worker()))
  }

  take_worker <- function() {
    while (length(idle)) {
      worker <- idle[[1]]
      idle <<- idle[-1]
      if (worker$process$is_alive()) return(worker)
      end_worker(worker)
    }
    start_worker()
  }

  assign_jobs <- function() {
    while (length(queue) && length(busy) < size) {
      job <- queue[[1]]
      queue <<- queue[-1]
      job$worker <- take_worker()
      job$until <- Sys.time() + timeout_s
      # A worker that died just now: the next look at it finds out.
      try(job$worker$process$write_input(paste0(job$folder, "\n")), silent = TRUE)
      busy <<- c(busy, list(job))
    }
  }

  # What became of a job: NULL while it runs.
  outcome_of <- function(job) {
    outcome <- file.path(job$folder, "outcome.rds")
    if (file.exists(outcome)) return(readRDS(outcome))
    if (Sys.time() > job$until) {
      return(failed_job(500L, sprintf(
        "the fit took longer than R_SERVICE_FIT_TIMEOUT_SECS (%g s) and was ended", timeout_s
      )))
    }
    if (job$worker$process$is_alive()) return(NULL)
    # It may have ended between the two looks.
    if (file.exists(outcome)) return(readRDS(outcome))
    failed_job(500L, paste(
      "the fitting process died (killed, or out of memory?); the next request gets a new one"
    ), detail = last_words(job$worker))
  }

  tick <- function() {
    outcomes <- lapply(busy, outcome_of)
    done <- !vapply(outcomes, is.null, NA)
    finished <- busy[done]
    outcomes <- outcomes[done]
    busy <<- busy[!done]
    for (i in seq_along(finished)) {
      worker <- finished[[i]]$worker
      if (used_again(outcomes[[i]])) idle <<- c(idle, list(worker)) else end_worker(worker)
      finished[[i]]$resolve(outcomes[[i]])
    }
    assign_jobs()
    fill()
    ticking <<- length(busy) > 0
    if (ticking) later::later(tick, poll_interval_s)
  }

  # Do the job in `folder`; a promise of its outcome.
  submit <- function(folder) {
    promises::promise(function(resolve, reject) {
      queue <<- c(queue, list(list(folder = folder, resolve = resolve)))
      if (!ticking) tick()
    })
  }

  list(
    submit = submit,
    warm_up = warm_up,
    inside = function() length(busy) + length(queue),
    close = function() {
      for (job in busy) end_worker(job$worker)
      for (worker in idle) end_worker(worker)
    }
  )
}

failed_job <- function(status, error, detail = NULL) {
  list(status = status, error = error, detail = detail, rows = NA, run_id = NA)
}
