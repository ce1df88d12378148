# Growth of learners by lme4. Start: Rscript r/glmm/service.R, with R_SERVICE_PORT set.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
source(file.path(here, "..", "lib", "server.R"), chdir = TRUE)

serve(
  "glmm", here,
  routes = list("/glmm/fit_progress" = "fit_progress"),
  packages = "lme4"
)
