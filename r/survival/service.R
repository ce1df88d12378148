# Churn by Cox and Kaplan-Meier. Start: Rscript r/survival/service.R, with R_SERVICE_PORT set.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
source(file.path(here, "..", "lib", "server.R"), chdir = TRUE)

serve(
  "survival", here,
  routes = list("/survival/fit" = "fit_survival"),
  packages = "survival"
)
