"""The live ability filter: one Gaussian fold an attempt, for one learner and one topic.

A learner's ability in a topic is theta = g + d: a global ability g and the topic's
deviation d. A learner is kept as

- ``g, vg``: mean and variance of g (one pair a learner), and
- ``d0, s, r`` (one triple a topic): d = d0 + s g + e, e ~ N(0, r), independent of
  everything else.

So a topic is stored *given* the learner's global ability. Answers in one topic tell
nothing about another topic's deviation once g is known, hence a fold that moves g leaves
every other topic's triple exactly right, and the covariance of g and d is s vg without
anybody having to update it. Without drift this is the exact Gaussian posterior over all
topics; only the projection of each answer's likelihood onto a Gaussian approximates.

Everything here is plain floats and ``math``: this runs once an attempt. Times, counts
and identities belong to the caller.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import exp, isfinite, sqrt
from struct import Struct

from stream.domain.irt import logit

__all__ = [
    "DEFAULT_FILTER",
    "FilterConfig",
    "deviation",
    "filter_from",
    "fold",
    "fold_drifted",
    "fold_global",
    "initial_global",
    "initial_topic",
    "match",
    "predict_correct",
    "provisional_difficulty",
    "rebase_topic",
    "regress",
    "rescaled_filter",
    "snapshot",
    "topic_ability",
]

_SINGLES = Struct("<ff")

GlobalState = tuple[float, float]
"""(g, vg)."""

TopicState = tuple[float, float, float, float, float]
"""(g, vg, d0, s, r)."""


@dataclass(frozen=True, slots=True)
class FilterConfig:
    """Constants of the ability filter. One setting serves all data sets."""

    prior_mean: float = 0.0
    """Mean ability of a learner never seen (logits): the scale's origin."""

    prior_var: float = 1.0
    """Variance of ability between learners (logits^2): the scale's unit, as in the fit."""

    topic_var: float = 0.09
    """Variance of a topic's deviation from the global ability (logits^2), .3 squared:
    topics of one curriculum correlate at about .9."""

    drift: float = 0.0075
    """Variance added to g before an attempt (logits^2) while little is known: people
    learn. Shrinks with evidence, see ``drift_n0``."""

    drift_n0: float = 60.0
    """Attempts after which the global drift has halved: drift / (1 + n / drift_n0). A
    constant drift forgets as fast as it learns and never settles; with this one the
    theta of a learner who does not change stays within .06 of the batch estimate."""

    topic_drift: float = 0.0005
    """As ``drift``, for the deviation of the attempt's topic: learning shows there first."""

    topic_drift_n0: float = 10.0
    """As ``drift_n0``, counted in attempts of the topic."""

    item_mean: float = 0.0
    """Difficulty of an item of which nothing is known (logits)."""

    item_var: float = 1.0
    """Its variance (logits^2): what such an item's answer tells is taken with caution."""


DEFAULT_FILTER = FilterConfig()
"""The one default setting."""

_MEANS = ("prior_mean", "item_mean")
_COUNTS = ("drift_n0", "topic_drift_n0")


def filter_from(values: Mapping[str, float]) -> FilterConfig:
    """Read published constants by name; those not named are as by default.

    Raises
    ------
    ValueError
        An unknown name, or a value that is not finite or, of a variance or a number of
        attempts, not positive (drifts may be 0).

    Examples
    --------
    >>> filter_from({"prior_mean": 0.5}).prior_mean
    0.5
    """
    names = [f.name for f in fields(FilterConfig)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ValueError(f"unknown constants {', '.join(unknown)}; known: {', '.join(names)}")
    for name, value in values.items():
        least_ok = name in _MEANS or value > 0.0 or (value == 0.0 and name.endswith("drift"))
        if not (isfinite(value) and least_ok):
            raise ValueError(f"the filter's {name} is {value}; it must be finite and positive")
    return FilterConfig(**{name: float(value) for name, value in values.items()})


def rescaled_filter(config: FilterConfig, slope: float, intercept: float) -> FilterConfig:
    """Return the constants on the scale theta* = slope theta + intercept.

    Means move, variances stretch, numbers of attempts stay: with items put on that scale too
    the filter predicts the same.
    """
    square = slope * slope
    return FilterConfig(
        **{
            name: slope * value + intercept
            if name in _MEANS
            else value
            if name in _COUNTS
            else square * value
            for name, value in ((f.name, getattr(config, f.name)) for f in fields(config))
        }
    )


# Positive nodes and weights of the 7-point Gauss-Hermite rule for a standard normal;
# more nodes change nothing that the Gaussian form itself does not already lose.
_X1, _X2, _X3 = 1.1544053947399682, 2.366759410734541, 3.7504397177257425
_W0, _W1, _W2, _W3 = (
    0.45714285714285724,
    0.2401231786050127,
    0.03075712396758652,
    0.000548268855972217,
)
_M1, _M2, _M3 = _W1 * _X1, _W2 * _X2, _W3 * _X3
_S1, _S2, _S3 = _M1 * _X1, _M2 * _X2, _M3 * _X3

_MAX_PREDICTOR = 300.0  # keeps every product of two exponentials below finite
_MAX_SPREAD = 80.0  # 80 * _X3 = 300
_MIN_REST = 1e-9  # rounding must not turn a well-known topic's variance negative


def initial_global(config: FilterConfig = DEFAULT_FILTER) -> GlobalState:
    """Return (g, vg) of a learner without attempts: the population's."""
    return config.prior_mean, config.prior_var


def initial_topic(config: FilterConfig = DEFAULT_FILTER) -> tuple[float, float, float]:
    """Return (d0, s, r) of a topic without attempts: deviation 0, independent of g."""
    return 0.0, 0.0, config.topic_var


def deviation(g: float, vg: float, d0: float, s: float, r: float) -> tuple[float, float, float]:
    """Moments of a topic's deviation from the state.

    Returns
    -------
    tuple
        Mean of d, variance of d, covariance of g and d (logits, logits^2).
    """
    c = s * vg
    return d0 + s * g, s * c + r, c


def topic_ability(g: float, vg: float, d0: float, s: float, r: float) -> tuple[float, float]:
    """Mean and variance of theta = g + d in one topic.

    Returns
    -------
    tuple
        (theta, variance), logits and logits^2. The global ability is (g, vg) itself.

    Examples
    --------
    >>> topic_ability(0.5, 1.0, 0.0, 0.0, 0.09)
    (0.5, 1.09)
    """
    load = 1.0 + s
    return d0 + load * g, load * load * vg + r


def snapshot(theta: float, variance: float) -> tuple[float, float]:
    """Return an ability and its variance as a day keeps them: in single precision.

    Abilities of the past are shown and compared, and a rebase is measured from one; nothing is
    folded on them, so seven digits are plenty.

    Examples
    --------
    >>> abs(snapshot(0.1, 0.2)[0] - 0.1) < 1e-8
    True
    """
    theta, variance = _SINGLES.unpack(_SINGLES.pack(theta, variance))
    return theta, variance


def rebase_topic(d0: float, s: float, shift: float) -> float:
    """Return the d0 that keeps a topic's deviation when g is moved by ``shift``.

    A rebase moves the origin of a learner's g (``g += shift``); the deviation of each
    topic stays what it is, so theta moves by ``shift`` everywhere. Call it for every
    topic of the learner.
    """
    return d0 - s * shift


def fold(
    g: float,
    vg: float,
    d0: float,
    s: float,
    r: float,
    a: float,
    b: float,
    c: float,
    correct: bool,
    n: int = 0,
    n_topic: int = 0,
    b_var: float = 0.0,
    config: FilterConfig = DEFAULT_FILTER,
) -> TopicState:
    """Fold one scored attempt in a topic into a learner's state.

    Predict (annealed drift), match the first two moments of theta's posterior by 7-point
    Gauss-Hermite quadrature, then carry the change of theta back to g and d by their
    regression on theta.

    Parameters
    ----------
    g, vg, d0, s, r
        The learner's global state and the topic's triple, see the module.
    a, b, c
        The item on the same scale, logistic metric D = 1. Effects that make this one
        answer easier (practice, memory; logits) enter as ``b - effect / a``.
    correct
        The score.
    n, n_topic
        Attempts folded before this one: all, and in this topic. They only anneal drift.
    b_var
        Variance of the item's difficulty (logits^2), 0 for a calibrated item: an answer
        to an item that is itself uncertain says less.
    config
        Constants of the filter.

    Returns
    -------
    tuple
        The new (g, vg, d0, s, r). Finite for any item `irt.item_params` accepts;
        variances stay positive.

    References
    ----------
    Herbrich, Minka & Graepel (2007), TrueSkill, for Gaussian moment matching of one
    observation; Glickman (1999), eq. 10, for the variance added before a fold.
    """
    drift = config.drift / (1.0 + n / config.drift_n0)
    topic_drift = config.topic_drift / (1.0 + n_topic / config.topic_drift_n0)
    return fold_drifted(g, vg, d0, s, r, a, b, c, correct, b_var, drift, topic_drift)


def fold_drifted(
    g: float,
    vg: float,
    d0: float,
    s: float,
    r: float,
    a: float,
    b: float,
    c: float,
    correct: bool,
    b_var: float,
    drift: float,
    topic_drift: float,
) -> TopicState:
    """As `fold`, given the variances that global ability and deviation have gained by drift."""
    vg_now = vg + drift
    cov = s * vg
    vd = s * cov + r + topic_drift
    d = d0 + s * g
    g_load = vg_now + cov
    d_load = vd + cov
    v = g_load + d_load
    m = g + d
    m_new, v_new = match(m, v, a, b, c, correct, b_var)
    return regress(g, vg_now, d, vd, cov, g_load / v, d_load / v, m_new - m, v_new - v)


def fold_global(
    g: float,
    vg: float,
    a: float,
    b: float,
    c: float,
    correct: bool,
    n: int = 0,
    b_var: float = 0.0,
    config: FilterConfig = DEFAULT_FILTER,
) -> GlobalState:
    """Fold one attempt that belongs to no topic: as `fold` with theta = g.

    Returns
    -------
    tuple
        The new (g, vg).
    """
    vg = vg + config.drift / (1.0 + n / config.drift_n0)
    return match(g, vg, a, b, c, correct, b_var)


def predict_correct(
    theta: float, variance: float, a: float, b: float, c: float = 0.0, b_var: float = 0.0
) -> float:
    """Probability that the next answer is correct, the uncertainty of theta averaged out.

    Parameters
    ----------
    theta, variance
        As `topic_ability` returns them (or g, vg).
    a, b, c, b_var
        The item, as for `fold`.

    Returns
    -------
    float
        In [c, 1], by the quadrature of `fold`.

    Examples
    --------
    >>> round(predict_correct(0.0, 1.0, 1.0, 0.0), 6)
    0.5
    """
    z, _, _ = _weigh(theta, variance + b_var, a, b, c, True)
    return z


def provisional_difficulty(
    n: int,
    correct: int,
    prior_mean: float,
    prior_sd: float = 1.0,
    ability_var: float = 1.0,
) -> tuple[float, float]:
    """Difficulty of an item without parameters, from its proportion correct.

    The logit of the proportion, widened because learners differ, is combined with what
    is known of items in general, each weighted by its precision.

    Parameters
    ----------
    n, correct
        Answers to the item and how many were correct, 0 <= correct <= n.
    prior_mean, prior_sd
        Mean and standard deviation of difficulty among comparable items (the topic's, or
        all): what the item has before any answer. There is no silent 0.
    ability_var
        Variance of theta among those who answered (logits^2).

    Returns
    -------
    tuple
        (b, sd), logits: finite for all right, all wrong and no answer at all.

    Raises
    ------
    ValueError
        correct is not between 0 and n, or a standard deviation is not positive.

    References
    ----------
    Gart & Zweifel (1967), Biometrika 54, for the 1/2 added to both cells and the
    variance; Zeger, Liang & Albert (1988), Biometrics 44, eq. 3.4, for the widening.

    Examples
    --------
    >>> provisional_difficulty(0, 0, prior_mean=0.4)
    (0.4, 1.0)
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} correct of {n} answers is not possible")
    if prior_sd <= 0.0 or ability_var < 0.0:
        raise ValueError("prior_sd must be positive and ability_var not negative")
    if n == 0:
        return prior_mean, prior_sd
    right, wrong = correct + 0.5, n - correct + 0.5
    widening = sqrt(1.0 + _PROBIT_FACTOR * ability_var)
    observed = -logit(right / (right + wrong)) * widening
    observed_var = (1.0 / right + 1.0 / wrong) * widening * widening
    precision = 1.0 / (prior_sd * prior_sd) + 1.0 / observed_var
    b = (prior_mean / (prior_sd * prior_sd) + observed / observed_var) / precision
    return b, sqrt(1.0 / precision)


_PROBIT_FACTOR = 0.3459  # (16 sqrt(3) / (15 pi))^2: logistic averaged over a normal


def _weigh(
    m: float, v: float, a: float, b: float, c: float, correct: bool
) -> tuple[float, float, float]:
    """Integrate N(m, v) times the answer's likelihood: z, z E[x], z E[x^2].

    x is theta in standard units. The nodes are symmetric, so that four exponentials do
    for seven likelihoods.
    """
    x = a * (b - m) if correct else a * (m - b)
    if x > _MAX_PREDICTOR:
        x = _MAX_PREDICTOR
    elif x < -_MAX_PREDICTOR:
        x = -_MAX_PREDICTOR
    spread = a * sqrt(v)
    if spread > _MAX_SPREAD:
        spread = _MAX_SPREAD
    odds = exp(x)
    u1, u2, u3 = exp(spread * _X1), exp(spread * _X2), exp(spread * _X3)
    # hi: the node on the side the answer speaks for; lo: its mirror image.
    hi1, hi2, hi3 = 1.0 / (1.0 + odds / u1), 1.0 / (1.0 + odds / u2), 1.0 / (1.0 + odds / u3)
    lo1, lo2, lo3 = 1.0 / (1.0 + odds * u1), 1.0 / (1.0 + odds * u2), 1.0 / (1.0 + odds * u3)
    sum1, sum2, sum3 = hi1 + lo1, hi2 + lo2, hi3 + lo3
    z0 = _W0 / (1.0 + odds) + _W1 * sum1 + _W2 * sum2 + _W3 * sum3
    z1 = _M1 * (hi1 - lo1) + _M2 * (hi2 - lo2) + _M3 * (hi3 - lo3)
    z2 = _S1 * sum1 + _S2 * sum2 + _S3 * sum3
    if correct:
        if c:  # the weights sum to 1, 0 and 1, so guessing only mixes the sums
            return c + (1.0 - c) * z0, (1.0 - c) * z1, c + (1.0 - c) * z2
        return z0, z1, z2
    return z0, -z1, z2  # 1 - c cancels: a wrong answer is never a guess


def match(
    m: float, v: float, a: float, b: float, c: float, correct: bool, b_var: float
) -> tuple[float, float]:
    """Posterior mean and variance of theta ~ N(m, v) after one answer; items as for `fold`.

    The first two moments of the posterior, by 7-point Gauss-Hermite quadrature.
    """
    wide = v + b_var
    z0, z1, z2 = _weigh(m, wide, a, b, c, correct)
    shift = z1 / z0
    share = z2 / z0 - shift * shift
    # Cramer-Rao: one answer holds at most a^2/4 of information. Binds where a steep item
    # surprises so much that all weight falls on the outermost node.
    least = 1.0 / (1.0 + 0.25 * a * a * wide)
    if share < least:
        share = least
    gain = v / wide
    return m + gain * sqrt(wide) * shift, v + gain * v * (share - 1.0)


def regress(
    g: float,
    vg: float,
    d: float,
    vd: float,
    cov: float,
    k_g: float,
    k_d: float,
    dm: float,
    dv: float,
) -> TopicState:
    """Carry a change of theta's mean and variance back to g and d | g.

    Parameters
    ----------
    g, vg, d, vd, cov
        Moments of the global ability and the topic's deviation before it.
    k_g, k_d
        Their regressions on theta = g + d.
    dm, dv
        Change of theta's mean and variance.

    Returns
    -------
    tuple
        The new (g, vg, d0, s, r).
    """
    g += k_g * dm
    vg += k_g * k_g * dv
    cov += k_g * k_d * dv
    s = cov / vg
    r = vd + k_d * k_d * dv - s * cov
    return g, vg, d + k_d * dm - s * g, s, r if r > _MIN_REST else _MIN_REST
