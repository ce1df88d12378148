# score ~ week + (week | user_id) + (1 | topic_id), by restricted maximum likelihood.

suppressPackageStartupMessages(library(lme4))

# Formulas from the one wanted to the simplest: a variance that comes out as zero, or a
# correlation of one, says that the data do not carry the fuller one.
progress_formulas <- c(
  "score ~ week + (week | user_id) + (1 | topic_id)",
  "score ~ week + (week || user_id) + (1 | topic_id)",
  "score ~ week + (1 | user_id) + (1 | topic_id)"
)

# POST /glmm/fit_progress: a decoded request to its answer.
fit_progress <- function(request) {
  run_id <- read_run_id(request, "glmm")
  least <- read_number(request, "min_observations", 10, 3, 1e9, whole = TRUE)
  rows <- progress_rows(request, least)
  fitted <- fit_first_regular(rows)
  fit <- fitted$fit
  fit_answer(
    run_id,
    model_spec = list(formula = fitted$formula, method = "REML", package = "lme4",
                      version = as.character(packageVersion("lme4")), min_observations = least),
    metrics = list(
      n = nobs(fit), students = length(unique(rows$user_id)),
      topics = length(unique(rows$topic_id)), log_likelihood = as.numeric(logLik(fit)),
      aic = AIC(fit), bic = BIC(fit), sigma = sigma(fit),
      converged = converged(fit), singular = FALSE
    ),
    warnings = fitted$warnings,
    fixed = fixed_effects(fit),
    students = student_lines(fit),
    topics = topic_levels(fit, rows),
    variances = variances(fit)
  )
}

# The request's rows as columns user_id, topic_id, week, score; enough of them to fit.
progress_rows <- function(request, least) {
  data <- read_rows(request, "rows", c("user_id", "topic_id", "week", "score"), least)
  rows <- data.frame(
    user_id = text_column(data, "user_id"),
    topic_id = text_column(data, "topic_id"),
    week = number_column(data, "week", 0, 10000, whole = TRUE),
    score = number_column(data, "score")
  )
  if (length(unique(rows$user_id)) < 2) {
    bad_input("rows: there is 1 user_id; at least 2 are needed to tell learners apart")
  }
  for (what in c("user_id", "topic_id")) {
    if (!anyDuplicated(rows[[what]])) {
      bad_input("rows: every %s has one row only, so that it cannot be told from chance", what)
    }
  }
  if (length(unique(rows$week)) < 2) {
    bad_input("rows: all are of week %g; growth needs at least 2 weeks", rows$week[1])
  }
  if (length(unique(rows$score)) < 2) {
    bad_input("rows: all scores are %g; there is nothing to explain", rows$score[1])
  }
  rows
}

# The fullest model that is not singular: list(fit, formula, warnings).
fit_first_regular <- function(rows) {
  warnings <- character()
  formulas <- progress_formulas
  if (length(unique(rows$topic_id)) == 1) {
    formulas <- sub(" + (1 | topic_id)", "", formulas, fixed = TRUE)
    warnings <- "There is one curriculum topic only; its term was left out."
  }
  for (formula in formulas) {
    said <- character()
    fit <- tryCatch(
      withCallingHandlers(
        lmer(as.formula(formula), rows,
             control = lmerControl(optimizer = "bobyqa", calc.derivs = TRUE)),
        warning = function(w) {
          said <<- c(said, conditionMessage(w))
          invokeRestart("muffleWarning")
        },
        message = function(m) invokeRestart("muffleMessage")
      ),
      # Fewer rows than effects: what lme4 refuses, a simpler model may still fit.
      error = function(e) conditionMessage(e)
    )
    why <- if (is.character(fit)) {
      fit
    } else if (isSingular(fit, tol = 1e-4)) {
      "it is singular: a variance is zero or a correlation is one"
    } else {
      NULL
    }
    if (is.null(why)) return(list(fit = fit, formula = formula, warnings = c(warnings, said)))
    warnings <- c(warnings, sprintf("%s was not used: %s.", formula, sub("\\.$", "", why)))
  }
  unusable("no model can be used. %s", paste(warnings, collapse = " "))
}

converged <- function(fit) length(fit@optinfo$conv$lme4$code) == 0 && fit@optinfo$conv$opt == 0

fixed_effects <- function(fit) {
  table <- coef(summary(fit))
  data.frame(term = rownames(table), estimate = table[, "Estimate"], se = table[, "Std. Error"],
             t = table[, "t value"])
}

# Each learner's own line: the fixed effects and that learner's deviation.
student_lines <- function(fit) {
  line <- coef(fit)$user_id
  data.frame(user_id = rownames(line), intercept = line[["(Intercept)"]], slope = line[["week"]])
}

# Each topic's deviation from the mean: above 0 is easier; 0 for the only one there is.
topic_levels <- function(fit, rows) {
  topics <- ranef(fit)$topic_id
  if (is.null(topics)) return(data.frame(topic_id = unique(rows$topic_id), intercept = 0))
  data.frame(topic_id = rownames(topics), intercept = topics[["(Intercept)"]])
}

# Standard deviations; the correlation stands with the second term of its pair.
variances <- function(fit) {
  table <- as.data.frame(VarCorr(fit))
  sds <- table[is.na(table$var2), ]
  pairs <- table[!is.na(table$var2), ]
  at <- match(paste(sds$grp, sds$var1), paste(pairs$grp, pairs$var2))
  data.frame(
    # lme4 numbers the parts of an uncorrelated pair: user_id, user_id.1
    group = sub("\\.\\d+$", "", sds$grp),
    term = ifelse(is.na(sds$var1), "Residual", sds$var1),
    sd = sds$sdcor,
    correlation = pairs$sdcor[at]
  )
}
