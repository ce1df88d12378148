# Weekly forecast and anomalies by prophet.
# Start: Rscript r/forecast/service.R, with R_SERVICE_PORT set.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
source(file.path(here, "..", "lib", "server.R"), chdir = TRUE)

serve(
  "forecast", here,
  routes = list("/forecast/fit" = "fit_forecast"),
  packages = "prophet"
)
