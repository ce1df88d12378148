# How every figure looks, and how it gets into the page: as inline SVG whose colours are the
# page's variables, so that it follows light, dark and print.

colours <- c(ink = "#1F2933", muted = "#5B6773", grid = "#E6E9ED", paper = "#FFFFFF",
             blue = "#2A6FB0", orange = "#C8611C", teal = "#1F8A78", violet = "#7B55A1",
             grey = "#8B95A1")
ink <- function(name) unname(colours[name])

theme_report <- function(grid = "y") {
  line <- element_line(colour = ink("grid"), linewidth = .35)
  theme_minimal(base_size = 9) + theme(
    text = element_text(colour = ink("ink")),
    axis.text = element_text(colour = ink("muted"), size = 8),
    axis.title = element_text(colour = ink("muted"), size = 8),
    axis.title.y = element_text(margin = margin(r = 5)),
    axis.title.x = element_text(margin = margin(t = 4)),
    panel.grid.minor = element_blank(),
    panel.grid.major.x = if (grepl("x", grid)) line else element_blank(),
    panel.grid.major.y = if (grepl("y", grid)) line else element_blank(),
    strip.text = element_text(hjust = 0, face = "bold", size = 8.5, colour = ink("ink")),
    panel.spacing = unit(10, "pt"),
    legend.position = "none",
    plot.margin = margin(4, 6, 2, 2)
  )
}
theme_set(theme_report())
update_geom_defaults("text", list(size = 2.8, colour = ink("ink")))
minus_labels <- function(x) minus(format(x, trim = TRUE, drop0trailing = TRUE))

# At most eight of some dates, the newest among them.
every_so_often <- function(x) {
  step <- max(1, ceiling(length(x) / 8))
  x[(length(x) - seq_along(x)) %% step == 0]
}

figure_number <- 0
figure <- function(plot, alt, caption = NULL, width = 8, height = 2.8, class = "") {
  figure_number <<- figure_number + 1
  get <- svglite::svgstring(width = width, height = height, bg = "transparent",
                            fix_text_size = FALSE, system_fonts = list(sans = "Arial"))
  tryCatch(print(plot), finally = grDevices::dev.off())
  svg <- paste(as.character(get()), collapse = "\n")
  svg <- sub("^.*?(<svg)", "\\1", svg)
  svg <- sub("width='[^']*' height='[^']*'", "", svg)
  svg <- sub("<svg ", sprintf("<svg role=\"img\" aria-label=\"%s\" ", esc(alt)), svg)
  svg <- gsub("font-family: [^;]*;", "", svg)
  # Its ids and styles would be the whole page's.
  svg <- gsub("(id='|url\\(#)", sprintf("\\1f%d-", figure_number), svg)
  svg <- gsub(".svglite ", sprintf(".f%d ", figure_number), svg, fixed = TRUE)
  svg <- sub("class='svglite'", sprintf("class='f%d'", figure_number), svg)
  for (name in names(colours)) {
    svg <- gsub(colours[[name]], sprintf("var(--%s, %s)", name, tolower(colours[[name]])), svg,
                fixed = TRUE)
  }
  paste0("<figure class=\"", class, "\">", svg,
         if (is.null(caption)) "" else paste0("<figcaption>", prose(caption), "</figcaption>"),
         "</figure>")
}

histogram_frame <- function(h) {
  if (is.null(h)) return(NULL)
  n <- length(h$counts)
  width <- (h$high - h$low) / n
  data.frame(mid = h$low + width * (seq_len(n) - .5), n = as.numeric(h$counts), width = width)
}
# The part of a histogram that holds something, with a margin.
trimmed <- function(d, by = 2) {
  held <- which(d$n > 0)
  if (!length(held)) return(d)
  d[max(1, min(held) - by):min(nrow(d), max(held) + by), ]
}
