# Numbers, words and pieces of HTML. Everything from the data passes through esc().

esc <- function(x) {
  x <- as.character(x)
  x[is.na(x)] <- ""
  for (pair in list(c("&", "&amp;"), c("<", "&lt;"), c(">", "&gt;"), c("\"", "&quot;"),
                    c("'", "&#39;"), c("`", "&#96;"))) {
    x <- gsub(pair[1], pair[2], x, fixed = TRUE)
  }
  x
}

# As pandoc's raw block, so that nothing in it is read as Markdown.
emit <- function(...) cat("\n\n``````{=html}\n", ..., "\n``````\n\n", sep = "")

# Sentences of ours, with `commands` set as code.
prose <- function(x) gsub("&#96;([^&]*)&#96;", "<code>\\1</code>", esc(x))
para <- function(..., class = NULL) {
  sprintf("<p%s>%s</p>", if (is.null(class)) "" else sprintf(" class=\"%s\"", class), paste0(...))
}
reading <- function(...) emit(para(prose(paste0(...)), class = "reading"))
missing_note <- function(text) emit(para(prose(text), class = "missing"))

# One number of the data; NA where it is absent or no number.
one <- function(x) {
  if (is.null(x) || length(x) != 1 || is.list(x)) return(NA_real_)
  suppressWarnings(as.numeric(x))
}
text_of <- function(x) if (is.null(x) || length(x) != 1) NA_character_ else as.character(x)

minus <- function(x) sub("^-", "\u2212", x)
num <- function(x, digits = 2, sign = FALSE) {
  x <- as.numeric(x)
  shown <- formatC(x, format = "f", digits = digits, big.mark = ",")
  zero <- !is.na(x) & round(x, digits) == 0
  shown[zero] <- sub("^-", "", shown[zero])
  plus <- sign & !is.na(x) & !zero & x > 0
  shown[plus] <- paste0("+", shown[plus])
  ifelse(is.na(x) | !is.finite(x), "\u2013", minus(shown))
}
int <- function(x) num(x, 0)
pct <- function(x, digits = 1) {
  ifelse(is.na(x), "\u2013", paste0(num(100 * as.numeric(x), digits), "\u00a0%"))
}
p_value <- function(p) ifelse(is.na(p), "\u2013", ifelse(p < .001, "< .001", sub("^0", "", num(p, 3))))
plural <- function(n, one, many = paste0(one, "s")) {
  paste(int(n), ifelse(!is.na(n) & n == 1, one, many))
}

day_of <- function(x) as.Date(substr(ifelse(is.na(x), NA, as.character(x)), 1, 10))
day <- function(x, form = "%e %b %Y") {
  d <- day_of(x)
  ifelse(is.na(d), "\u2013", trimws(format(d, form)))
}
day_range <- function(from, to) {
  from <- day_of(from); to <- day_of(to)
  form <- if (format(from, "%Y") != format(to, "%Y")) "%e %B %Y"
          else if (format(from, "%m") != format(to, "%m")) "%e %B" else "%e"
  paste0(trimws(format(from, form)), "\u2013", trimws(format(to, "%e %B %Y")))
}

# Rows of the data as a data frame with these columns; numbers, text, whatever is missing as NA.
frame <- function(rows, numbers = character(), texts = character()) {
  columns <- c(
    lapply(setNames(nm = texts), function(k) vapply(rows, function(r) text_of(r[[k]]), "")),
    lapply(setNames(nm = numbers), function(k) vapply(rows, function(r) one(r[[k]]), 0))
  )
  if (!length(rows)) columns <- lapply(columns, function(x) x[0])
  as.data.frame(columns, stringsAsFactors = FALSE, check.names = FALSE)
}

# A table of cells that are HTML already. `right` names the columns of numbers; the first column
# heads its row.
html_table <- function(cells, caption, right = character(), heads = names(cells)) {
  side <- ifelse(names(cells) %in% right, " class=\"r\"", "")
  head <- paste0("<th scope=\"col\"", side, ">", heads, "</th>", collapse = "")
  rows <- vapply(seq_len(nrow(cells)), function(i) {
    values <- vapply(cells, function(column) as.character(column[[i]]), "")
    first <- paste0("<th scope=\"row\">", values[1], "</th>")
    rest <- if (length(values) > 1) {
      paste0("<td", side[-1], ">", values[-1], "</td>", collapse = "")
    } else ""
    paste0("<tr>", first, rest, "</tr>")
  }, "")
  paste0("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"", esc(caption),
         "\"><table><caption>", esc(caption), "</caption><thead><tr>", head,
         "</tr></thead><tbody>\n", paste(rows, collapse = "\n"), "\n</tbody></table></div>")
}
details <- function(title, body) {
  paste0("<details><summary>", esc(title), "</summary>", body, "</details>")
}
cells <- function(...) data.frame(..., check.names = FALSE, stringsAsFactors = FALSE)

sparkline <- function(values, label) {
  known <- which(is.finite(values))
  if (length(known) < 2) return("")
  low <- min(values[known]); span <- max(values[known]) - low
  x <- 100 * (known - 1) / (length(values) - 1)
  y <- if (span > 0) 26 - 22 * (values[known] - low) / span else rep(15, length(known))
  last <- length(known)
  sprintf(paste0("<svg class=\"sparkline\" viewBox=\"0 0 100 30\" preserveAspectRatio=\"none\" ",
                 "role=\"img\" aria-label=\"%s\"><polyline points=\"%s\"/>",
                 "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/></svg>"),
          esc(label), paste(sprintf("%.1f,%.1f", x, y), collapse = " "),
          x[last], y[last], x[last], y[last])
}
