# Item calibration by OpenMx and rpf. Start: Rscript r/irt/service.R, with R_SERVICE_PORT set.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
source(file.path(here, "..", "lib", "server.R"), chdir = TRUE)

serve(
  "irt", here,
  routes = list("/irt/calibrate" = "calibrate", "/irt/score" = "score"),
  packages = c("OpenMx", "rpf", "Matrix"),
  health = list(observations = c("rows", "columns"))
)
