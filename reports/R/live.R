# Summary, theta trend, distributions, item map.

change_html <- function(now, before, shown, better = 0, tolerance = 0) {
  # better: 1 more is better, -1 less is better, 0 neither. Colour never stands alone.
  if (is.na(before)) return("no week before to compare")
  d <- now - before
  if (abs(d) <= tolerance) return(paste0("as the week before"))
  mood <- if (better == 0) "" else if (d * better > 0) "good" else "bad"
  paste0("<span class=\"", mood, "\">", if (d > 0) "\u25b2" else "\u25bc", " ", shown(d),
         "</span> on the week before")
}
relative <- function(before) function(d) {
  if (isTRUE(before > 0)) paste0(num(100 * d / before, 1, sign = TRUE), "\u00a0%") else num(d, 0, sign = TRUE)
}
points_of <- function(d) paste(num(100 * d, 1, sign = TRUE), "points")
logits_of <- function(d) paste(num(d, 2, sign = TRUE), "logits")

tile <- function(label, value, change = "", spark = "", unit = "") {
  paste0("<li class=\"tile\"><span class=\"label\">", esc(label), "</span><span class=\"value\">",
         value, if (nzchar(unit)) paste0(" <small>", unit, "</small>") else "",
         "</span><span class=\"change\">", change, "</span>",
         if (nzchar(spark)) paste0("<span class=\"spark\">", spark, "</span>") else "", "</li>")
}

summary_figures <- function(report) {
  s <- report$summary
  weeks <- frame(s$weeks, c("learners", "attempts", "correct", "hints", "topics", "new_learners"),
                 "week_start")
  trend <- frame(report$theta_trend$weeks, "median", "week_start")
  median_of <- function(week) {
    at <- match(week, trend$week_start)
    trend$median[at]
  }
  list(weeks = weeks, now = weeks[nrow(weeks), ], before = weeks[nrow(weeks) - 1, ],
       medians = median_of(weeks$week_start),
       theta = median_of(weeks$week_start[nrow(weeks)]),
       theta_before = median_of(weeks$week_start[nrow(weeks) - 1]),
       moved = one(s$paired_change$median), moved_n = one(s$paired_change$n),
       risk = one(s$at_risk$share), risk_before = one(s$at_risk$previous),
       items = one(s$items_calibrated))
}

summary_lead <- function(report, f) {
  share <- f$now$correct / f$now$attempts
  change <- 100 * (f$now$attempts / f$before$attempts - 1)
  more <- if (!is.finite(change)) "" else if (abs(change) < .05) ", as many as the week before"
          else sprintf(", %s\u00a0%% %s than the week before", num(abs(change), 1),
                       if (change > 0) "more" else "fewer")
  moved <- if (is.na(f$moved)) "" else sprintf(
    " The %s who practised the same topics in both weeks moved by %s logits (median).",
    plural(f$moved_n, "learner"), num(f$moved, 2, sign = TRUE))
  ability <- if (is.na(f$theta)) "" else sprintf(
    " The median ability of those active is %s logits%s.", num(f$theta, 2, sign = TRUE),
    if (is.na(f$theta_before)) "" else paste0(", after ", num(f$theta_before, 2, sign = TRUE)))
  para(sprintf("%s answered %s in %s%s, and %s of the answers were right.",
               plural(f$now$learners, "learner"), plural(f$now$attempts, "question"),
               plural(f$now$topics, "topic"), more, pct(share)), ability, moved, class = "lead")
}

summary_tiles <- function(report, f) {
  w <- f$weeks
  n <- nrow(w)
  past <- sprintf("over %d weeks", n)
  share <- ifelse(w$attempts > 0, w$correct / w$attempts, NA)
  tiles <- c(
    tile("Active learners", int(f$now$learners),
         change_html(f$now$learners, f$before$learners, relative(f$before$learners), 1),
         sparkline(w$learners, paste("Active learners", past))),
    tile("Questions answered", int(f$now$attempts),
         change_html(f$now$attempts, f$before$attempts, relative(f$before$attempts), 1),
         sparkline(w$attempts, paste("Questions answered", past))),
    tile("Answered rightly", pct(share[n]),
         change_html(share[n], share[n - 1], points_of, 0, .0005),
         sparkline(share, paste("Share of right answers", past))),
    tile("Median ability", num(f$theta, 2, sign = TRUE),
         change_html(f$theta, f$theta_before, logits_of, 1, .005),
         sparkline(f$medians, paste("Median ability", past)), unit = "logits"),
    tile("Same learners moved", num(f$moved, 2, sign = TRUE),
         if (is.na(f$moved)) "nobody practised in both weeks"
         else paste("median of", plural(f$moved_n, "learner"), "in topics of both weeks"), unit = "logits"),
    tile("Likely to stop", pct(f$risk),
         change_html(f$risk, f$risk_before, points_of, -1, .0005)),
    tile("New learners", int(f$now$new_learners),
         change_html(f$now$new_learners, f$before$new_learners,
                     function(d) num(d, 0, sign = TRUE), 1)),
    tile("Calibrated items", int(f$items),
         if (is.null(report$calibration$in_force)) "none in force"
         else paste("parameters of", day(report$calibration$in_force$at)))
  )
  paste0("<ul class=\"tiles\">", paste(tiles, collapse = "\n"), "</ul>")
}

# What a person should look at, gathered from all sections.
to_look_at <- function(report) {
  found <- character()
  say <- function(...) found <<- c(found, paste0(...))
  week <- one(report$alerts$week)
  if (isTRUE(week > 0)) {
    say("<a href=\"#drift-alerts\">", plural(week, "alert"), "</a> raised in this week.")
  }
  runs <- report$calibration$runs
  last <- if (length(runs)) runs[[length(runs)]] else NULL
  if (!is.null(last) && !isTRUE(last$applied)) {
    say("The <a href=\"#calibration\">last calibration</a> (", day(last$at), ") was not applied: ",
        esc(paste(unlist(last$reasons), collapse = " ")), " The parameters before it stay in force.")
  }
  anomalies <- frame(report$forecast$run$anomalies, c("value", "expected", "z"), "week_start")
  here <- anomalies[anomalies$week_start == report$week$start, ]
  if (nrow(here)) {
    say("Improvement in this week is <a href=\"#forecast\">out of the ordinary</a>: ",
        num(here$value[1], 3), " where ", num(here$expected[1], 3), " was expected.")
  }
  ph <- one(report$churn$run$metrics$ph_p)
  if (isTRUE(ph < .05)) {
    say("The <a href=\"#churn\">hazard ratios</a> change over time (test of proportional hazards, p ",
        if (ph < .001) "" else "= ", p_value(ph), "): read them as averages.")
  }
  for (part in list(c("glmm", "growth", "growth model"), c("bayes", "growth", "Bayesian growth model"))) {
    failed <- report$growth[[part[1]]]$failed
    if (!is.null(failed)) say("The last fit of the <a href=\"#growth\">", part[3], "</a> failed: ",
                              esc(text_of(failed$error)))
  }
  for (name in c("forecast", "churn", "segments")) {
    failed <- report[[name]]$run$failed
    if (!is.null(failed)) say("The last fit for <a href=\"#", name, "\">", name, "</a> failed: ",
                              esc(text_of(failed$error)))
  }
  if (isFALSE(report$week$over)) say("The week is not over yet: its figures will still grow.")
  if (!is.null(report$summary$missing)) {
    if (is.null(report$week$newest_activity)) return("")
    say("There are no attempts of this week. If there should be, look at the engine and the sink: <code>thetastream doctor</code>.")
  }
  if (!length(found)) {
    return("<div class=\"look calm\"><h3>Nothing needs attention</h3><p>No alert, no refused calibration and no anomaly in this week.</p></div>")
  }
  paste0("<div class=\"look\"><h3>Worth a look</h3><ul>",
         paste0("<li>", found, "</li>", collapse = ""), "</ul></div>")
}

indicator_words <- list(
  I_t = c("Improvement", "ability now against a fortnight earlier, held back where evidence is thin; above 0 is better", 1),
  I_t_accuracy = c("Improvement in accuracy", "the same from shares of right answers", 1),
  E_t = c("Efficiency", "by what share right answers became quicker", 1),
  R_t = c("Recovery", "share of missed items answered rightly later", 1),
  A_t = c("Engagement", "how often and how regularly, 0 to 1", 1),
  P = c("Chance above target", "probability that the ability exceeds the target", 1),
  S = c("Risk of stopping", "0 active as ever, 1 looks gone", -1),
  G_t = c("Growth", "change of the share right a week, by the growth model", 1)
)

indicators_table <- function(report) {
  rows <- report$summary$indicators
  keys <- vapply(rows, function(r) r$key, "")
  rows <- rows[order(match(keys, names(indicator_words)), keys)]
  if (!length(rows)) {
    return(para(prose("No indicators are in weekly_kpi for these weeks; the sink writes them from kpi-updates."), class = "missing"))
  }
  body <- do.call(rbind, lapply(rows, function(r) {
    words <- indicator_words[[r$key]]
    if (is.null(words)) words <- c(r$key, "of the platform's own", 0)
    means <- frame(r$means, "mean", "week_start")$mean
    cells(
      Indicator = paste0(esc(words[1]), " <code>", esc(r$key), "</code><span class=\"sub\">",
                         esc(words[2]), "</span>"),
      Learners = int(one(r$n)),
      Mean = num(one(r$mean), 3),
      `Half lie between` = if (is.na(one(r$q25))) "\u2013" else
        paste(num(one(r$q25), 2), "and", num(one(r$q75), 2)),
      Change = num(one(r$mean) - one(r$previous_mean), 3, sign = TRUE),
      Weeks = sparkline(means, paste("Weekly mean of", words[1]))
    )
  }))
  html_table(body, "Indicators of the week, all learners with a value",
             c("Learners", "Mean", "Half lie between", "Change"),
             c("Indicator", "Learners", "Mean", "Half lie between", "Change of the mean",
               sprintf("%d weeks", one(report$weeks))))
}

weeks_table <- function(report) {
  f <- summary_figures(report)
  w <- f$weeks[rev(seq_len(nrow(f$weeks))), ]
  html_table(cells(Week = day(w$week_start), Learners = int(w$learners), Attempts = int(w$attempts),
                   Right = pct(ifelse(w$attempts > 0, w$correct / w$attempts, NA)),
                   Hints = int(w$hints), `Median ability` = num(rev(f$medians), 2, TRUE)),
             "Weeks, newest first", c("Learners", "Attempts", "Right", "Hints", "Median ability"),
             c("Week of", "Learners", "Attempts", "Right", "Hints", "Median ability"))
}

trend_section <- function(report) {
  d <- frame(report$theta_trend$weeks, c("n", "q05", "q25", "median", "q75", "q95"), "week_start")
  d$at <- day_of(d$week_start)
  # A calibration stands at the week its data end in.
  ends <- day_of(unlist(report$theta_trend$calibrations))
  marks <- data.frame(at = unique(ends - (as.integer(format(ends, "%u")) - 1)))
  last <- d[nrow(d), ]; first <- d[1, ]
  plot <- ggplot(d, aes(at)) +
    geom_hline(yintercept = 0, colour = ink("grey"), linewidth = .3) +
    geom_ribbon(aes(ymin = q05, ymax = q95), fill = ink("blue"), alpha = .13) +
    geom_ribbon(aes(ymin = q25, ymax = q75), fill = ink("blue"), alpha = .24) +
    geom_line(aes(y = median), colour = ink("blue"), linewidth = .8) +
    geom_point(aes(y = median), colour = ink("blue"), size = 1.5) +
    scale_x_date(date_labels = "%e %b", breaks = every_so_often(d$at),
                 expand = expansion(add = c(2, 11))) +
    scale_y_continuous(labels = minus_labels) +
    labs(x = "week of", y = "ability, logits") +
    annotate("text", x = last$at + 2, y = c(last$q95, last$q75, last$median, last$q25, last$q05),
             label = c("95 %", "upper quarter", "median", "lower quarter", "5 %"), hjust = 0,
             size = 2.5, colour = ink("muted"))
  if (nrow(marks)) {
    foot <- min(d$q05, na.rm = TRUE) - .06 * diff(range(c(d$q05, d$q95), na.rm = TRUE))
    plot <- plot + geom_point(data = marks, aes(at, foot), shape = 17, colour = ink("orange"), size = 1.8)
  }
  if (nrow(d) == 1) {
    plot <- plot + geom_linerange(aes(ymin = q05, ymax = q95), colour = ink("blue"), alpha = .35) +
      geom_linerange(aes(ymin = q25, ymax = q75), colour = ink("blue"), linewidth = 3, alpha = .35)
  }
  emit(
    para(if (nrow(d) == 1) sprintf("One week so far, with a median of %s logits.", num(last$median, 2, TRUE))
         else sprintf("Over %s the median went from %s to %s logits.", plural(nrow(d), "week"),
                      num(first$median, 2, TRUE), num(last$median, 2, TRUE))),
    figure(plot, sprintf("Line of the weekly median ability with bands of the middle half and the middle nine tenths, %s weeks; from %s to %s logits.",
                         nrow(d), num(first$median, 2), num(last$median, 2)),
           paste0("Ability of the learners active in each week: median, middle half (dark) and middle nine tenths (light).",
                  if (nrow(marks)) " Triangles: weeks whose answers gave new item parameters; a step there may be the scale's, not the learners'." else ""),
           height = 3),
    details("The weeks as a table", weeks_table(report))
  )
}

distributions_section <- function(report) {
  d <- report$distributions
  parts <- list()
  if (isTRUE(one(d$abilities$n) > 0)) {
    parts$learners <- cbind(histogram_frame(d$abilities$histogram), who = sprintf("Abilities of %s", plural(one(d$abilities$n), "learner")), key = "a")
  }
  if (isTRUE(one(d$difficulty$n) > 0)) {
    parts$items <- cbind(histogram_frame(d$difficulty$histogram), who = sprintf("Difficulties of %s", plural(one(d$difficulty$n), "item")), key = "b")
  }
  both <- do.call(rbind, parts)
  both$share <- both$n / ave(both$n, both$who, FUN = sum)
  both$who <- factor(both$who, levels = unique(both$who))
  middle <- data.frame(
    who = factor(levels(both$who), levels = levels(both$who)),
    at = c(if (!is.null(parts$learners)) one(d$abilities$median), if (!is.null(parts$items)) one(d$difficulty$median)))
  plot <- ggplot(both, aes(mid, share)) +
    geom_col(aes(fill = key), width = .25 * .92) +
    geom_vline(data = middle, aes(xintercept = at), linewidth = .5, colour = ink("ink")) +
    geom_text(data = middle, aes(x = at, y = Inf, label = paste("median", num(at, 2, TRUE))), hjust = -.08, vjust = 1.2, size = 2.6) +
    facet_wrap(~who, ncol = 1) +
    scale_fill_manual(values = c(a = ink("blue"), b = ink("orange"))) +
    scale_x_continuous(breaks = -4:4, labels = minus_labels, expand = expansion(add = .05)) +
    scale_y_continuous(labels = function(x) paste(round(100 * x), "%"), n.breaks = 4, expand = expansion(mult = c(.02, .2))) +
    labs(x = "logits (outermost bars: and beyond)", y = NULL)
  rows <- rbind(
    if (!is.null(parts$learners)) with(d$abilities, cells(What = "Ability", n = int(n), Mean = num(one(mean), 2), q05 = num(one(q05), 2), q25 = num(one(q25), 2), Median = num(one(median), 2), q75 = num(one(q75), 2), q95 = num(one(q95), 2))),
    if (!is.null(parts$items)) with(d$difficulty, cells(What = "Difficulty b", n = int(n), Mean = num(one(mean), 2), q05 = num(one(q05), 2), q25 = num(one(q25), 2), Median = num(one(median), 2), q75 = num(one(q75), 2), q95 = num(one(q95), 2))),
    if (!is.null(parts$items)) with(d$slope, cells(What = "Slope a", n = int(n), Mean = num(one(mean), 2), q05 = num(one(q05), 2), q25 = num(one(q25), 2), Median = num(one(median), 2), q75 = num(one(q75), 2), q95 = num(one(q95), 2)))
  )
  absent <- c(if (is.null(parts$learners)) "No learner was active in the last 28 days.",
              if (is.null(parts$items)) "No item is calibrated yet: `thetastream calibrate now --wait`.")
  emit(if (length(absent)) para(prose(paste(absent, collapse = " ")), class = "missing") else "",
       figure(plot, paste0("Histograms on one scale: ", paste(sprintf("%s, median %s", middle$who, num(middle$at, 2)), collapse = "; "), "."),
              sprintf("Learners active in the %s days up to Sunday, and items with calibrated parameters, on the same logit scale. A learner at an item's difficulty answers it rightly half of the time.", int(one(d$active_days))),
              height = if (length(parts) > 1) 3.6 else 2.2),
       details("The distributions as a table",
               html_table(rows, "Quantiles", names(rows)[-1], c("", "n", "Mean", "5 %", "25 %", "Median", "75 %", "95 %"))))
}

map_section <- function(report) {
  d <- report$distributions
  learners <- histogram_frame(d$abilities$histogram)
  items <- histogram_frame(d$difficulty$histogram)
  target <- report$item_map
  near <- as.numeric(target$near)
  total <- sum(learners$n)
  learners$share <- learners$n / max(learners$n)
  listed <- frame(d$list, c("b", "se_b"), "item_id")
  low <- min(c(learners$mid[learners$n > 0], items$mid[items$n > 0])) - .25
  high <- max(c(learners$mid[learners$n > 0], items$mid[items$n > 0])) + .25
  thin <- learners$n >= .005 * total & near < one(target$enough)
  plot <- ggplot()
  if (any(thin)) {
    plot <- plot + geom_rect(data = learners[thin, ], aes(xmin = -1.12, xmax = 1.16, ymin = mid - .125, ymax = mid + .125), fill = ink("grey"), alpha = .16)
  }
  plot <- plot + geom_col(data = learners[learners$n > 0, ], aes(y = mid, x = -share), orientation = "y", fill = ink("blue"), width = .23)
  if (nrow(listed)) {
    listed$b <- pmin(pmax(listed$b, -3.999), 3.999)
    listed$bin <- floor((listed$b + 4) / .25)
    listed <- listed[order(listed$bin, listed$b), ]
    listed$k <- ave(listed$b, listed$bin, FUN = seq_along)
    step <- min(1 / max(listed$k), .06)
    listed$x <- listed$k * step
    listed$y <- -4 + .25 * (listed$bin + .5)
    ends <- listed[order(listed$b), ]
    ends <- unique(rbind(head(ends, 2), tail(ends, 2)))
    label <- aggregate(item_id ~ bin + y, ends, function(x) paste(x, collapse = ", "))
    label$x <- vapply(label$bin, function(b) max(listed$x[listed$bin == b]), 0) + .03
    plot <- plot + geom_point(data = listed, aes(x, y), colour = ink("orange"), size = max(.8, min(1.9, 60 * step))) +
      geom_text(data = label, aes(x, y, label = item_id), hjust = 0, size = 2.4, colour = ink("muted"))
  } else {
    items$share <- items$n / max(items$n)
    plot <- plot + geom_col(data = items[items$n > 0, ], aes(y = mid, x = share), orientation = "y", fill = ink("orange"), width = .23)
  }
  plot <- plot + geom_vline(xintercept = 0, colour = ink("ink"), linewidth = .4) +
    annotate("text", x = c(-.03, .03), y = high + .22, label = c("learners", "items"), hjust = c(1, 0), fontface = "bold", size = 3) +
    annotate("text", x = 1.16, y = c(high, low), label = c("hard", "easy"), hjust = 1, size = 2.6, colour = ink("muted")) +
    annotate("text", x = -1.12, y = c(high, low), label = c("able", "less able"), hjust = 0, size = 2.6, colour = ink("muted")) +
    scale_y_continuous(breaks = -4:4, labels = minus_labels, limits = c(low - .1, high + .3)) +
    scale_x_continuous(breaks = NULL, limits = c(-1.12, 1.16), expand = expansion()) +
    labs(x = NULL, y = "logits") + theme_report("y")
  gap <- one(d$difficulty$mean) - one(d$abilities$mean)
  where <- if (!any(thin)) "" else {
    above <- learners$mid[thin & learners$mid > one(d$abilities$median)]
    below <- learners$mid[thin & learners$mid < one(d$abilities$median)]
    paste0(" Items are thin", if (length(above)) paste0(" above ", num(min(above) - .125, 1, TRUE)) else "",
           if (length(above) && length(below)) " and" else "",
           if (length(below)) paste0(" below ", num(max(below) + .125, 1, TRUE)) else "", " logits (shaded).")
  }
  emit(
    para(sprintf("The items are on average %s logits %s than the learners are able. %s of the learners have at least %s items within %s logits of their ability.%s",
                 num(abs(gap), 2), if (gap < 0) "easier" else "harder", pct(one(target$served), 0), int(one(target$enough)), num(one(target$within), 1), where)),
    figure(plot, sprintf("Item map: learners' abilities to the left and items' difficulties to the right of one vertical logit scale; the items are %s logits %s on average.", num(abs(gap), 2), if (gap < 0) "easier" else "harder"),
           if (nrow(listed)) "Learners as bars, each item as a dot at its difficulty. The hardest and easiest items are named."
           else sprintf("Learners and %s items as bars.", int(sum(items$n))),
           height = 4.6, class = "tall")
  )
}

masthead <- function(report) {
  w <- report$week
  parts <- list(summary = c("summary", "Summary"), `theta-trend` = c("theta_trend", "Theta trend"),
    distributions = c("distributions", "Distributions"), `item-map` = c("item_map", "Item map"),
    calibration = c("calibration", "Calibration"), linking = c("linking", "Linking"),
    growth = c("growth", "Growth"), forecast = c("forecast", "Forecast"), churn = c("churn", "Churn"),
    segments = c("segments", "Segments"), `drift-alerts` = c("alerts", "Drift alerts"))
  links <- vapply(names(parts), function(id) {
    empty <- !is.null(report[[parts[[id]][1]]]$missing)
    sprintf("<li%s><a href=\"#%s\">%s</a></li>", if (empty) " class=\"empty\"" else "", id, parts[[id]][2])
  }, "")
  emit("<header class=\"masthead\"><p class=\"kicker\">Weekly learning report \u00b7 ", esc(w$iso), "</p><h1>",
       day_range(w$start, w$end), "</h1><p class=\"muted\">",
       "What the platform knew at the end of the week, Sunday midnight UTC.",
       if (isFALSE(w$over)) " The week is not over: figures are those so far." else "", "</p></header>",
       "<nav class=\"contents\" aria-label=\"Sections\"><ul>", paste(links, collapse = ""), "</ul></nav>")
}

summary_section <- function(report) {
  f <- summary_figures(report)
  missing <- report$summary$missing
  newest <- report$week$newest_activity
  if (!is.null(missing)) {
    missing_note(paste(missing, if (is.null(newest)) "The tables hold no attempts at all: replay a file with `thetastream replay`, or run `thetastream demo`."
                       else sprintf("The newest attempts are of %s.", day(newest))))
  } else {
    emit(summary_lead(report, f), summary_tiles(report, f))
  }
  emit(to_look_at(report))
  if (is.null(missing) || length(report$summary$indicators)) {
    emit("<h3>Indicators</h3>", indicators_table(report))
  }
}

page_footer <- function(report) {
  emit("<footer><p>Made by thetastream from PostgreSQL on ", day(report$generated_at), " at ",
       esc(substr(report$generated_at, 12, 16)), " UTC. Weeks run from Monday to Sunday, days are UTC, ",
       "abilities and difficulties are logits (logistic metric, D = 1). Runs of models count by the end of their data. ",
       "The report names no learner. The figures are in the JSON file beside it.</p></footer>")
}
