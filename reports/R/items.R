# Calibration, linking, drift alerts.

run_columns <- c("responses", "learners", "items", "flagged", "fixed_anchors", "iterations",
                 "log_likelihood", "group_mean", "group_mean_se", "group_sd", "group_sd_se", "slope",
                 "se_slope", "intercept", "se_intercept", "common_items")

status_badge <- function(status) {
  good <- status == "applied"
  sprintf("<span class=\"status %s\">%s</span>", ifelse(good, "applied", "not"),
          esc(gsub("_", " ", status)))
}
with_se <- function(x, se, digits = 2) {
  ifelse(is.na(x), "\u2013", paste0(num(x, digits), ifelse(is.na(se), "", paste0(" \u00b1 ", num(se, digits)))))
}

calibration_section <- function(report) {
  runs <- report$calibration$runs
  d <- frame(runs, run_columns, c("run_id", "at", "status", "version", "model", "reason"))
  d$converged <- vapply(runs, function(r) if (is.null(r$converged)) "\u2013" else if (isTRUE(r$converged)) "yes" else "no", "")
  shown <- rev(seq_len(nrow(d)))[seq_len(min(10, nrow(d)))]
  s <- d[shown, ]
  table <- html_table(cells(
    Data = paste0("<span class=\"nb\">", day(s$at), "</span><span class=\"sub nb\">", esc(s$run_id), "</span>"),
    Outcome = paste0(status_badge(s$status), ifelse(s$converged == "no", "<span class=\"sub\">not converged</span>", "")),
    Responses = int(s$responses), Learners = int(s$learners), Items = int(s$items), Poor = int(s$flagged),
    LL = ifelse(is.na(s$log_likelihood), "\u2013", num(s$log_likelihood / s$responses, 3)),
    Mean = with_se(s$group_mean, s$group_mean_se), SD = with_se(s$group_sd, s$group_sd_se)),
    "Calibrations, newest first", c("Responses", "Learners", "Items", "Poor", "LL", "Mean", "SD"),
    c("Data until", "Outcome", "Responses", "Learners", "Items", "Poorly deter\u00admined", "Log-likelihood a response",
      "Group mean \u00b1\u00a0SE", "Group SD \u00b1\u00a0SE"))
  remarks <- unlist(lapply(runs[shown], function(r) {
    said <- c(unlist(r$reasons), unlist(r$warnings))
    if (!length(said)) NULL else paste0("<li>", day(r$at), ", ", esc(r$run_id), ": ", esc(paste(said, collapse = " ")), "</li>")
  }))
  now <- report$calibration$in_force
  lead <- if (is.null(now)) para("No calibration is in force; items have provisional difficulties.") else {
    para(sprintf("In force are the parameters of %s%s: %s at %s, %s model.", day(now$at),
                 if (is.null(now$version)) "" else paste0(" (", esc(now$version), ")"),
                 plural(one(now$responses), "response"), plural(one(now$items), "item"), esc(text_of(now$model))))
  }
  se <- report$distributions$se_b
  precision <- ""
  if (isTRUE(one(se$n) > 0)) {
    h <- trimmed(histogram_frame(se$histogram), 1)
    h <- h[h$mid > 0, ]
    precision <- figure(
      ggplot(h, aes(mid, n)) + geom_col(fill = ink("teal"), width = h$width[1] * .9) +
        geom_vline(xintercept = one(se$median), colour = ink("ink"), linewidth = .4) +
        annotate("text", x = one(se$median), y = Inf, vjust = 1.3, hjust = -.08, size = 2.6, label = paste("median", num(one(se$median), 2))) +
        scale_y_continuous(expand = expansion(mult = c(.02, .16))) +
        labs(x = "standard error of the difficulty, logits", y = "items"),
      sprintf("Histogram of the standard errors of %s difficulties, median %s logits.", int(one(se$n)), num(one(se$median), 2)),
      "How well the difficulties in force are known: .2 comes with about a hundred responses; fixed anchors stand at 0.",
      width = 4, height = 2.3, class = "half")
  }
  listed <- frame(report$distributions$list, c("a", "b"), "item_id")
  spread <- ""
  if (nrow(listed)) {
    spread <- figure(
      ggplot(listed, aes(b, a)) + geom_hline(yintercept = 1, colour = ink("grey"), linewidth = .3) +
        geom_point(colour = ink("orange"), alpha = .65, size = 1.3) +
        scale_x_continuous(labels = minus_labels) + labs(x = "difficulty b, logits", y = "slope a") + theme_report("xy"),
      sprintf("Scatter of slopes against difficulties of %s items; slopes have the median %s.", nrow(listed), num(one(report$distributions$slope$median), 2)),
      "Slopes say how sharply an item separates: .5 is flat, 1 ordinary, 2 steep.", width = 4, height = 2.3, class = "half")
  }
  emit(lead, if (nzchar(precision) || nzchar(spread)) paste0("<div class=\"pair\">", precision, spread, "</div>") else "",
       table, if (length(remarks)) paste0("<h3>Remarks</h3><ul class=\"note\">", paste(remarks, collapse = ""), "</ul>") else "",
       if (one(report$calibration$n_runs) > length(shown)) para(sprintf("%s in all.", plural(one(report$calibration$n_runs), "run")), class = "note") else "")
}

linking_methods <- c(reference = "defines the scale", fixed_anchors = "fixed anchors",
                     service = "given by the service", stocking_lord = "Stocking-Lord",
                     haebara = "Haebara", mean_sigma = "mean-sigma")

linking_section <- function(report) {
  runs <- report$linking$runs
  d <- frame(runs, run_columns, c("run_id", "at", "method", "version"))
  d$when <- day_of(d$at)
  d$method[is.na(d$method)] <- "not said"
  d$how <- ifelse(d$method %in% names(linking_methods), linking_methods[d$method], gsub("_", " ", d$method))
  both <- rbind(
    data.frame(when = d$when, value = d$slope, se = d$se_slope, how = d$how, what = "Slope (reference 1)", zero = 1),
    data.frame(when = d$when, value = d$intercept, se = d$se_intercept, how = d$how, what = "Intercept (reference 0), logits", zero = 0))
  both$what <- factor(both$what, levels = unique(both$what))
  both$se[is.na(both$se)] <- 0
  # Room around the reference, so that small changes do not look large.
  room <- data.frame(what = factor(levels(both$what), levels = levels(both$what))[c(1, 1, 2, 2)],
                     value = c(.9, 1.1, -.15, .15), when = both$when[1])
  plot <- ggplot(both, aes(when, value)) +
    geom_blank(data = room) +
    geom_hline(aes(yintercept = zero), colour = ink("grey"), linewidth = .4) +
    geom_line(colour = ink("violet"), linewidth = .4, alpha = .5) +
    geom_linerange(aes(ymin = value - 1.96 * se, ymax = value + 1.96 * se), colour = ink("violet"), linewidth = .7) +
    geom_point(aes(shape = how), colour = ink("violet"), fill = ink("paper"), size = 2) +
    facet_wrap(~what, scales = "free_y") +
    scale_shape_manual(values = c(16, 21, 15, 22, 17, 24, 18)) +
    scale_y_continuous(labels = minus_labels) + scale_x_date(date_labels = "%e %b", expand = expansion(mult = c(.05, .08))) +
    labs(x = "data until", y = NULL, shape = NULL) +
    theme(legend.position = "bottom", legend.text = element_text(size = 8, colour = ink("muted")),
          legend.margin = margin(0, 0, 0, 0), legend.key.size = unit(10, "pt"))
  last <- d[nrow(d), ]
  s <- d[rev(seq_len(nrow(d))), ]
  dropped <- vapply(rev(runs), function(r) {
    gone <- unlist(r$dropped)
    if (!length(gone)) "\u2013" else esc(paste(c(head(gone, 6), if (length(gone) > 6) sprintf("and %d more", length(gone) - 6)), collapse = ", "))
  }, "")
  weak <- (!is.na(last$se_slope) && last$se_slope > .1) || (!is.na(last$se_intercept) && last$se_intercept > .15)
  emit(
    para(if (last$method == "fixed_anchors") sprintf("The newest calibration (%s) held %s fixed: slope 1 and intercept 0 by construction, so the scale cannot have moved.", day(last$at), plural(last$common_items, "anchor item"))
         else if (last$method == "reference") sprintf("The calibration of %s defines the reference scale: slope 1 and intercept 0 by definition.", day(last$at))
         else sprintf("The newest constants (%s) are slope %s and intercept %s%s%s.", day(last$at), with_se(last$slope, last$se_slope, 3), with_se(last$intercept, last$se_intercept, 3),
                      if (is.na(last$common_items)) "" else paste0(", from ", plural(last$common_items, "common item")),
                      if (weak) "; the link is weak" else "")),
    figure(plot, sprintf("Linking constants of %d calibrations over time with 95 %% intervals; the last slope is %s, the last intercept %s.", nrow(d), num(last$slope, 3), num(last$intercept, 3)),
           "Slope and intercept of each applied calibration with 95 % intervals. Constants without a bar are so by definition or come without a standard error.", height = 2.9),
    html_table(cells(Data = day(s$at), Method = esc(s$how), Slope = num(s$slope, 3), SEs = num(s$se_slope, 3),
                     Intercept = num(s$intercept, 3, TRUE), SEi = num(s$se_intercept, 3), Common = int(s$common_items), Dropped = dropped),
               "Linking constants, newest first", c("Slope", "SEs", "Intercept", "SEi", "Common"),
               c("Data until", "Method", "Slope", "SE", "Intercept", "SE", "Common items", "Left out as drifted")))
}

alert_kinds <- c(item_drift = "item drift", refused = "calibration refused")

alerts_section <- function(report) {
  a <- report$alerts
  d <- frame(a$rows, c("shift", "z", "n"), c("at", "kind", "item_id", "detail", "run_id"))
  d$what <- ifelse(d$kind %in% names(alert_kinds), alert_kinds[d$kind], gsub("_", " ", d$kind))
  kinds <- frame(a$by_kind, "n", "kind")
  kinds$what <- ifelse(kinds$kind %in% names(alert_kinds), alert_kinds[kinds$kind], gsub("_", " ", kinds$kind))
  emit(
    para(sprintf("%s in this week, %s in all (%s).", plural(one(a$week), "alert"), int(one(a$total)),
                 esc(paste(int(kinds$n), kinds$what, collapse = ", ")))),
    html_table(cells(Date = paste0("<span class=\"nb\">", day(d$at), "</span>"), Kind = esc(d$what),
                     Item = ifelse(is.na(d$item_id), "\u2013", esc(d$item_id)), What = esc(d$detail),
                     Shift = num(d$shift, 2, TRUE), z = num(d$z, 1, TRUE)),
               "Alerts, newest first", c("Shift", "z"), c("Date", "Kind", "Item", "What was seen", "Shift, logits", "z")),
    if (one(a$total) > nrow(d)) para(sprintf("The newest %d are shown.", nrow(d)), class = "note") else "",
    para(prose("Shift is how much easier (+) or harder (\u2212) an item has become since its calibration. Parameters stay in force until the next one. `docs/calibration.md` says how to read it."), class = "note"))
}
