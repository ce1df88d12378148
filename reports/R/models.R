# Growth, forecast, churn, segments.

fitted_note <- function(run) {
  until <- if (is.null(run$as_of)) "" else sprintf(", from what happened before %s", day(run$as_of))
  warned <- unlist(run$warnings)
  paste0(para(sprintf("Fitted %s%s; run %s.", day(run$fitted_at), until, esc(run$run_id)), class = "note"),
         if (length(warned)) paste0("<ul class=\"note\">", paste0("<li>", esc(warned), "</li>", collapse = ""), "</ul>") else "")
}
# A learner's value each, as bars; where only quantiles are known, as a line with its middle half.
spread_figure <- function(d, x_label, alt, caption, colour, digits, scale = waiver(), high = NA) {
  known <- vapply(c("q05", "q25", "median", "q75", "q95"), function(k) one(d[[k]]), 0)
  if (!isTRUE(one(d$n) > 0) || anyNA(known)) return("")
  middle <- annotate("text", x = known["median"], y = Inf, vjust = 1.3, hjust = -.06, size = 2.6,
                     label = paste("median", if (identical(scale, waiver())) num(known["median"], digits, TRUE) else pct(known["median"], 0)))
  h <- histogram_frame(d$histogram)
  labels <- if (identical(scale, waiver())) minus_labels else scale
  if (is.null(h)) {
    plot <- ggplot(as.data.frame(as.list(known)), aes(y = 1)) +
      geom_linerange(aes(xmin = q05, xmax = q95), colour = colour, linewidth = .8) +
      geom_linerange(aes(xmin = q25, xmax = q75), colour = colour, linewidth = 3.5, alpha = .55) +
      geom_point(aes(median), shape = 21, fill = ink("paper"), colour = colour, size = 3, stroke = 1) + middle +
      scale_y_continuous(breaks = NULL, limits = c(.5, 1.6)) + scale_x_continuous(labels = labels) +
      labs(x = x_label, y = NULL) + theme_report("x")
    return(figure(plot, alt, paste("Line: the middle nine tenths of the learners; bar: the middle half.", caption), width = 4, height = 1.5, class = "half"))
  }
  plot <- ggplot(h, aes(mid, n)) +
    geom_col(fill = if (is.na(high)) colour else ifelse(h$mid > high, colour, ink("grey")), width = h$width[1] * .9) +
    geom_vline(xintercept = known["median"], colour = ink("ink"), linewidth = .4) + middle +
    scale_y_continuous(expand = expansion(mult = c(.02, .16))) + scale_x_continuous(labels = labels) +
    labs(x = x_label, y = "learners")
  figure(plot, alt, caption, width = 4, height = 2.5, class = "half")
}
metric <- function(run, name) one(run$metrics[[name]])
metrics_line <- function(run, words, digits = 3) {
  known <- names(words)[vapply(names(words), function(k) !is.na(metric(run, k)), TRUE)]
  if (!length(known)) return("")
  values <- vapply(known, function(k) {
    x <- metric(run, k)
    if (abs(x) >= 1000 || x == round(x)) int(x) else num(x, digits)
  }, "")
  para(paste(words[known], values, collapse = " \u00b7 "), class = "note")
}
term_words <- c(`(Intercept)` = "level at the first week", week = "growth a week")
feature_words <- c(accuracy = "share right", attempts = "attempts", A_t = "engagement", E_t = "efficiency", theta = "ability", attempts_a_week = "attempts a week", mean_gap_days = "mean gap, days")
feature_name <- function(name) ifelse(name %in% names(feature_words), feature_words[name], gsub("_", " ", name))
term_name <- function(term) ifelse(term %in% names(term_words), term_words[term], gsub("_", " ", term))

growth_section <- function(report) {
  glmm <- report$growth$glmm; bayes <- report$growth$bayes
  fixed <- rbind(
    if (!is.null(glmm)) {
      f <- frame(glmm$fixed, c("estimate", "se", "t"), "term")
      if (nrow(f)) data.frame(model = "Mixed model (lme4)", f["term"], value = f$estimate, lower = f$estimate - 1.96 * f$se, upper = f$estimate + 1.96 * f$se, rhat = NA, ess = NA)
    },
    if (!is.null(bayes)) {
      f <- frame(bayes$fixed, c("mean", "lower", "upper", "rhat", "ess"), "term")
      if (nrow(f)) data.frame(model = "Bayesian (rstanarm)", f["term"], value = f$mean, f[c("lower", "upper", "rhat", "ess")])
    })
  week <- fixed[fixed$term == "week", ]
  shown <- if (!is.null(glmm) && isTRUE(one(glmm$slopes$n) > 0)) glmm else if (!is.null(bayes)) bayes else glmm
  slopes <- shown$slopes
  lead <- if (is.null(week) || !nrow(week)) "" else para(sprintf(
    "Learners gain on average %s a week (95 %% interval %s to %s, %s).%s", num(week$value[1], 3, TRUE), num(week$lower[1], 3, TRUE), num(week$upper[1], 3, TRUE),
    if (grepl("lme4", week$model[1])) "mixed model" else "Bayesian model",
    if (!is.na(one(slopes$positive))) sprintf(" %s of %s have a rising line.", pct(one(slopes$positive), 0), plural(one(slopes$n), "learner")) else ""))
  left <- spread_figure(slopes, "gain a week, on the scale of the score",
    sprintf("Gains a week of %s; median %s.", plural(one(slopes$n), "learner"), num(one(slopes$median), 3)),
    "Each learner's own slope, drawn towards the mean where evidence is thin.", ink("blue"), 3)
  topics <- frame(shown$topics, "intercept", "topic_id")
  right <- ""
  if (nrow(topics)) {
    topics$topic_id <- factor(topics$topic_id, levels = unique(topics$topic_id))
    right <- figure(
      ggplot(topics, aes(intercept, topic_id)) + geom_vline(xintercept = 0, colour = ink("grey"), linewidth = .4) +
        geom_segment(aes(x = 0, xend = intercept, yend = topic_id), colour = ink("orange"), linewidth = .5) +
        geom_point(colour = ink("orange"), size = 1.8) + scale_x_continuous(labels = minus_labels) +
        labs(x = "level of the topic", y = NULL) + theme_report("x"),
      sprintf("Levels of %d topics, from %s to %s.", nrow(topics), num(min(topics$intercept), 2), num(max(topics$intercept), 2)),
      if (one(shown$n_topics) > nrow(topics)) sprintf("The %d weakest and strongest of %s.", nrow(topics), plural(one(shown$n_topics), "topic")) else "Topics by level: to the right, scores run higher.",
      width = 4, height = max(1.6, min(4.2, .6 + .2 * nrow(topics))), class = "half")
  }
  tables <- if (is.null(fixed) || !nrow(fixed)) "" else html_table(cells(
    Effect = esc(term_name(fixed$term)), Model = esc(fixed$model), Estimate = num(fixed$value, 3, TRUE),
    Interval = paste(num(fixed$lower, 3, TRUE), "to", num(fixed$upper, 3, TRUE)),
    Rhat = num(fixed$rhat, 3), ESS = int(fixed$ess)),
    "Effects common to all learners", c("Estimate", "Interval", "Rhat", "ESS"),
    c("Effect", "Model", "Estimate", "95 % interval", "R-hat", "Effective samples"))
  v <- frame(glmm$variances, c("sd", "correlation"), c("group", "term"))
  spread <- if (!nrow(v)) "" else details("How much learners and topics differ", html_table(
    cells(Group = esc(v$group), Effect = esc(ifelse(is.na(v$term) | v$term == "", "\u2013", term_name(v$term))), SD = num(v$sd, 3), Correlation = num(v$correlation, 2)),
    "Standard deviations of the random effects", c("SD", "Correlation"), c("Group", "Effect", "SD", "Correlation")))
  formula <- text_of(glmm$spec$formula)
  priors <- bayes$spec$priors
  emit(lead, if (nzchar(left) || nzchar(right)) paste0("<div class=\"pair\">", left, right, "</div>") else "", tables, spread,
       if (!is.null(glmm)) paste0(
         para("<strong>Mixed model</strong>", if (is.na(formula)) "" else paste0(" <code>", esc(formula), "</code>"), if (isTRUE(glmm$metrics$singular)) " \u2013 singular: some differences are estimated as none" else "", class = "note"),
         metrics_line(glmm, c(n = "rows", students = "learners", topics = "topics", sigma = "residual SD", aic = "AIC", bic = "BIC", log_likelihood = "log-likelihood")),
         fitted_note(glmm)) else para(prose("No mixed model as of this week: `thetastream model now glmm`."), class = "note"),
       if (!is.null(bayes)) paste0(
         para("<strong>Bayesian model</strong>", if (is.null(priors)) "" else paste0(", priors ", esc(paste(names(unlist(priors)), unlist(priors), sep = ": ", collapse = "; "))), class = "note"),
         metrics_line(bayes, c(n = "rows", students = "learners", max_rhat = "largest R-hat", min_ess = "fewest effective samples", divergences = "divergences")),
         fitted_note(bayes)) else para(prose("No Bayesian growth model as of this week: `thetastream model now growth`."), class = "note"))
}

forecast_section <- function(report) {
  run <- report$forecast$run
  past <- frame(run$fitted, c("value", "expected"), "week_start")
  ahead <- frame(run$forecast, c("expected", "lower", "upper"), "week_start")
  odd <- frame(run$anomalies, c("value", "expected", "z"), "week_start")
  past$at <- day_of(past$week_start); ahead$at <- day_of(ahead$week_start); odd$at <- day_of(odd$week_start)
  past <- past[!is.na(past$at) & !is.na(past$value), ]
  ahead <- ahead[!is.na(ahead$at) & !is.na(ahead$expected), ]
  odd <- odd[!is.na(odd$at) & !is.na(odd$value), ]
  weeks <- sort(unique(c(past$at, ahead$at)))
  ticks <- every_so_often(weeks)
  plot <- ggplot() + geom_hline(yintercept = 0, colour = ink("grey"), linewidth = .3)
  if (nrow(past)) {
    joined <- rbind(data.frame(at = past$at, expected = past$expected)[nrow(past), ], data.frame(at = ahead$at, expected = ahead$expected))
    plot <- plot + geom_line(data = past, aes(at, expected), colour = ink("grey"), linewidth = .6) +
      geom_line(data = past, aes(at, value), colour = ink("blue"), linewidth = .35, alpha = .6) +
      geom_point(data = past, aes(at, value), colour = ink("blue"), size = 1.4)
  } else joined <- data.frame(at = ahead$at, expected = ahead$expected)
  if (nrow(ahead)) {
    plot <- plot + geom_ribbon(data = ahead, aes(at, ymin = lower, ymax = upper), fill = ink("teal"), alpha = .2) +
      geom_line(data = joined, aes(at, expected), colour = ink("teal"), linewidth = .8, linetype = "32") +
      geom_point(data = ahead, aes(at, expected), colour = ink("teal"), size = 1.4) +
      annotate("text", x = max(ahead$at) + 2, y = ahead$expected[nrow(ahead)], label = "forecast", hjust = 0, size = 2.6, colour = ink("teal"))
  }
  if (nrow(odd)) {
    plot <- plot + geom_point(data = odd, aes(at, value), shape = 21, size = 4.2, stroke = .9, colour = ink("orange")) +
      geom_text(data = odd, aes(at, value, label = paste("z", num(z, 1, TRUE))), vjust = ifelse(odd$z > 0, -1.3, 2.1), size = 2.5, colour = ink("orange"))
  }
  plot <- plot + scale_x_date(date_labels = "%e %b", breaks = ticks, expand = expansion(add = c(3, 18))) + scale_y_continuous(labels = minus_labels, expand = expansion(mult = .12)) +
    labs(x = "week of", y = "mean improvement I_t")
  end <- ahead[nrow(ahead), ]
  listed <- if (!nrow(odd)) para("No week was out of the ordinary.") else html_table(
    cells(Week = day(odd$week_start), Value = num(odd$value, 3, TRUE), Expected = num(odd$expected, 3, TRUE), z = num(odd$z, 1, TRUE)),
    "Weeks out of the ordinary", c("Value", "Expected", "z"), c("Week of", "Mean improvement", "Expected", "z"))
  coming <- if (!nrow(ahead)) "" else details("The forecast as a table", html_table(
    cells(Week = day(ahead$week_start), Expected = num(ahead$expected, 3, TRUE), Interval = paste(num(ahead$lower, 3, TRUE), "to", num(ahead$upper, 3, TRUE))),
    "Forecast", c("Expected", "Interval"), c("Week of", "Expected", "95 % interval")))
  emit(
    if (nrow(end)) para(sprintf("In the week of %s a mean improvement of %s is expected (95 %% interval %s to %s).", day(end$week_start), num(end$expected, 3, TRUE), num(end$lower, 3, TRUE), num(end$upper, 3, TRUE))) else "",
    if (nrow(past) || nrow(ahead)) figure(plot, sprintf("Weekly mean improvement over %d weeks with the model's course, a forecast of %d weeks and %d weeks marked as out of the ordinary.", nrow(past), nrow(ahead), nrow(odd)),
      "Dots: the weeks. Grey: what the model takes for their course. Dashed with band: forecast and 95 % interval. Circles: weeks out of the ordinary.", height = 3) else para("The run holds no weeks.", class = "missing"),
    listed, coming, metrics_line(run, c(n = "weeks", mae = "mean absolute error", rmse = "RMSE", residual_sd = "residual SD"), 4), fitted_note(run))
}

churn_section <- function(report) {
  run <- report$churn$run
  km <- frame(run$kaplan_meier, c("time", "at_risk", "survival", "lower", "upper"))
  hr <- frame(run$hazard_ratios, c("hazard_ratio", "lower", "upper", "p"), "term")
  km <- km[!is.na(km$time) & !is.na(km$survival), ]
  hr <- hr[!is.na(hr$hazard_ratio), ]
  gap <- one(run$churn_days); horizon <- one(run$horizon_days)
  lead <- character()
  if (nrow(km)) {
    half <- km$time[which(km$survival <= .5)[1]]
    at28 <- tail(km$survival[km$time <= 28], 1)
    lead <- c(lead, if (is.na(half)) "More than half of the learners are still active at the end of the time observed." else sprintf("Half of the learners have left after %s.", plural(half, "day")),
              if (length(at28) && max(km$time) >= 28) sprintf("%s stay longer than four weeks.", pct(at28, 0)))
  }
  within <- if (is.na(horizon)) "" else sprintf(" within %s days", int(horizon))
  if (!is.na(one(run$high_risk$gone))) lead <- c(lead, sprintf("%s have left already.", pct(one(run$high_risk$gone), 0)))
  if (!is.na(one(run$high_risk$share))) lead <- c(lead, sprintf("%s are at high risk of leaving%s.", pct(one(run$high_risk$share), 0), within))
  else if (!is.na(one(run$risks$q95))) lead <- c(lead, sprintf("Of those still here, one in twenty has a risk of %s or more of leaving%s.", pct(one(run$risks$q95), 0), within))
  curve <- ""
  if (nrow(km)) {
    km <- rbind(if (min(km$time) > 0) data.frame(time = 0, at_risk = max(km$at_risk), survival = 1, lower = 1, upper = 1), km)
    steps <- data.frame(time = c(km$time[1], rep(km$time[-1], each = 2)))
    hold <- function(x) c(rep(x[-length(x)], each = 2), x[length(x)])
    for (name in c("survival", "lower", "upper")) steps[[name]] <- hold(km[[name]])
    marks <- pretty(km$time, 5); marks <- marks[marks <= max(km$time)]
    at_risk <- data.frame(time = marks, n = vapply(marks, function(t) km$at_risk[max(which(km$time <= t))], 0))
    curve <- figure(
      ggplot(steps, aes(time)) + geom_ribbon(aes(ymin = lower, ymax = upper), fill = ink("blue"), alpha = .2) +
        geom_line(aes(y = survival), colour = ink("blue"), linewidth = .8) +
        geom_hline(yintercept = .5, colour = ink("grey"), linewidth = .3, linetype = "22") +
        geom_text(data = at_risk, aes(time, -.07, label = int(n)), size = 2.4, colour = ink("muted")) +
        annotate("text", x = 0, y = -.135, label = "at risk", hjust = .5, size = 2.3, colour = ink("muted")) +
        scale_y_continuous(labels = function(x) paste(round(100 * x), "%"), breaks = seq(0, 1, .25)) +
        scale_x_continuous(breaks = marks) + coord_cartesian(ylim = c(-.14, 1)) +
        labs(x = "days since the first attempt", y = "learners still active"),
      sprintf("Kaplan-Meier curve of learners still active over %s days, ending at %s.", int(max(km$time)), pct(km$survival[nrow(km)], 0)),
      sprintf("Kaplan-Meier curve with 95 %% band%s.", if (is.na(gap)) "" else sprintf("; left means %s days without an attempt", int(gap))), height = 3)
  }
  forest <- ""
  if (nrow(hr)) {
    hr <- hr[order(hr$hazard_ratio), ]
    hr$term <- factor(hr$term, levels = hr$term)
    clear <- !is.na(hr$lower) & !is.na(hr$upper) & (hr$lower > 1 | hr$upper < 1)
    forest <- figure(
      ggplot(hr, aes(hazard_ratio, term)) + geom_vline(xintercept = 1, colour = ink("grey"), linewidth = .5) +
        geom_linerange(aes(xmin = lower, xmax = upper), colour = ink("violet"), linewidth = .8) +
        geom_point(shape = ifelse(clear, 16, 21), fill = ink("paper"), colour = ink("violet"), size = 2.2) +
        scale_x_log10(labels = minus_labels) + scale_y_discrete(labels = feature_name) +
        labs(x = "hazard ratio (log scale)", y = NULL) + theme_report("x"),
      paste0("Hazard ratios: ", paste(feature_name(as.character(hr$term)), num(hr$hazard_ratio, 2), collapse = "; "), "."),
      "Above 1: goes with leaving sooner. Filled: the interval does not hold 1.", width = 4, height = max(1.7, .7 + .26 * nrow(hr)), class = "half")
  }
  risk <- spread_figure(run$risks, if (is.na(horizon)) "risk of leaving" else sprintf("risk of leaving within %s days", int(horizon)),
    sprintf("Risks of leaving of %s; median %s.", plural(one(run$risks$n), "learner"), pct(one(run$risks$median), 0)),
    if (is.null(run$risks$histogram)) "Those who have left already are not in it." else "Orange: even odds or more. Those who have left already stand at 100 %.",
    ink("orange"), 2, function(x) paste(round(100 * x), "%"), one(run$high_risk$from))
  table <- if (!nrow(hr)) "" else details("The hazard ratios as a table", html_table(
    cells(What = esc(feature_name(as.character(hr$term))), HR = num(hr$hazard_ratio, 2), Interval = paste(num(hr$lower, 2), "to", num(hr$upper, 2)), p = esc(p_value(hr$p))),
    "Hazard ratios", c("HR", "Interval", "p"), c("What", "Hazard ratio", "95 % interval", "p")))
  emit(if (length(lead)) para(paste(lead, collapse = " ")) else "", curve,
       if (nzchar(forest) || nzchar(risk)) paste0("<div class=\"pair\">", forest, risk, "</div>") else "", table,
       metrics_line(run, c(n = "learners", events = "left", concordance = "concordance", log_likelihood = "log-likelihood", ph_p = "proportional hazards, p"), 2), fitted_note(run))
}

segments_section <- function(report) {
  run <- report$segments$run
  features <- as.character(unlist(run$features))
  d <- frame(run$segments, "size", "segment")
  if (!nrow(d)) return(emit(para("The run holds no segments.", class = "missing"), fitted_note(run)))
  center <- do.call(rbind, lapply(run$segments, function(s) vapply(features, function(k) one(s$center[[k]]), 0)))
  total <- sum(d$size, na.rm = TRUE)
  table <- cells(Segment = esc(d$segment), Learners = int(d$size), Share = if (total > 0) pct(d$size / total, 0) else "\u2013")
  for (k in seq_along(features)) table[[features[k]]] <- num(center[, k], if (max(abs(center[, k]), 0, na.rm = TRUE) >= 100) 0 else 2)
  plot <- ""
  if (length(features) && nrow(d) > 1) {
    weight <- ifelse(is.na(d$size), 1, d$size)
    z <- apply(center, 2, function(x) {
      m <- weighted.mean(x, weight, na.rm = TRUE)
      s <- sqrt(weighted.mean((x - m)^2, weight, na.rm = TRUE))
      if (is.finite(s) && s > 0) (x - m) / s else x * 0
    })
    z <- matrix(z, nrow = nrow(d))
    long <- data.frame(segment = d$segment, feature = rep(feature_name(features), each = nrow(d)), z = as.vector(z))
    long$feature <- factor(long$feature, levels = rev(unique(long$feature)))
    hues <- rep(c(ink("blue"), ink("orange"), ink("teal"), ink("violet"), ink("grey"), ink("muted")), length.out = nrow(d))
    plot <- figure(
      ggplot(long, aes(z, feature)) + geom_vline(xintercept = 0, colour = ink("grey"), linewidth = .5) +
        geom_line(aes(group = feature), colour = ink("grid"), linewidth = 1.2) +
        geom_point(aes(colour = segment), size = 5) + geom_text(aes(label = segment), colour = ink("paper"), fontface = "bold", size = 2.7) +
        scale_colour_manual(values = setNames(hues, d$segment)) +
        scale_x_continuous(labels = minus_labels) + labs(x = "below \u2190 the mean of all learners \u2192 above (in units of the spread between segments)", y = NULL) + theme_report("x"),
      sprintf("Profiles of %d segments over %d features, relative to the mean of all learners.", nrow(d), length(features)),
      "Each letter is a segment's centre. Letters keep their meaning from run to run.", height = max(1.8, .8 + .3 * length(features)))
  }
  emit(para(sprintf("%s in %s%s.", plural(total, "learner"), plural(nrow(d), "segment"),
                    if (is.na(metric(run, "silhouette"))) "" else sprintf("; silhouette %s (above .5 well separated, below .25 hardly)", num(metric(run, "silhouette"), 2)))),
       plot, html_table(table, "Segments and their centres", names(table)[-1], c("Segment", "Learners", "Share", esc(feature_name(features)))), fitted_note(run))
}
