# Bayesian growth curves by rstanarm. Start: Rscript r/growth/service.R, with R_SERVICE_PORT set.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
source(file.path(here, "..", "lib", "server.R"), chdir = TRUE)

serve(
  "growth", here,
  routes = list("/growth/fit" = "fit_growth"),
  packages = "rstanarm"
)
