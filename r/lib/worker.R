# One worker: Rscript worker.R <service folder>. Loads the service, reads the folder of a job from
# standard input, does it and ends; after a request that was refused it waits for another. All that
# takes time is here: decompression, JSON, the fit, JSON again.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
source(file.path(here, "input.R"))
source(file.path(here, "answer.R"))
source(file.path(here, "workers.R"))
suppressPackageStartupMessages(source(file.path(commandArgs(TRUE)[1], "fit.R"), chdir = TRUE))
cat("ready\n")
flush(stdout())

jobs <- file("stdin", "r")
repeat {
  folder <- readLines(jobs, n = 1)
  if (length(folder) == 0) break # the server has ended
  outcome <- do_job(readRDS(file.path(folder, "job.rds")), folder)
  # Under its name only when it is whole.
  saveRDS(outcome, file.path(folder, "outcome.part"))
  file.rename(file.path(folder, "outcome.part"), file.path(folder, "outcome.rds"))
  if (!used_again(outcome)) break
}
