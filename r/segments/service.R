# Segments of learners by k-means. Start: Rscript r/segments/service.R, with R_SERVICE_PORT set.

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
source(file.path(here, "..", "lib", "server.R"), chdir = TRUE)

serve(
  "segments", here,
  routes = list("/segments/fit" = "fit_segments"),
  packages = "cluster"
)
