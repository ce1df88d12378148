#!/bin/sh
# Run the testthat tests of all services, or of those named: r/test.sh irt glmm
set -eu
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- $(for tests in */tests/testthat; do echo "${tests%%/*}"; done)
command -v Rscript >/dev/null || {
  echo "Rscript is missing; on Debian: apt-get install $(tr '\n' ' ' <packages.txt)" >&2
  exit 1
}
for service in "$@"; do
  echo "== $service"
  # As in a worker: the shared functions first, then the service's.
  Rscript --vanilla -e '
    service <- commandArgs(TRUE)
    source("lib/input.R"); source("lib/answer.R"); source("lib/settings.R")
    fit <- file.path(service, "fit.R")
    if (file.exists(fit)) source(fit, chdir = TRUE)
    testthat::test_dir(file.path(service, "tests", "testthat"), reporter = "summary",
                       env = globalenv(), stop_on_failure = TRUE, stop_on_warning = TRUE)
  ' "$service"
done
