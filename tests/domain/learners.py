"""Simulated answers, and folding them."""

import numpy as np

from stream.domain import ability


def simulate(rng, n, theta=None, deviations=(0.0,), c=0.0):
    theta = rng.normal() if theta is None else theta
    a, b = np.exp(rng.normal(0.0, 0.3, n)), rng.normal(0.0, 1.0, n)
    topic = rng.integers(0, len(deviations), n)
    p = c + (1 - c) / (1 + np.exp(-a * (theta + np.asarray(deviations)[topic] - b)))
    return a.tolist(), b.tolist(), topic.tolist(), (rng.random(n) < p).tolist()


def follow(a, b, topic, correct, config, c=0.0, skip=()):
    """Fold attempts one by one; return the global state and the topics' triples."""
    g, topics, seen = ability.initial_global(config), {}, {}
    for n, (a_i, b_i, t, right) in enumerate(zip(a, b, topic, correct, strict=True)):
        if n in skip:
            continue
        triple = topics.get(t, ability.initial_topic(config))
        state = ability.fold(*g, *triple, a_i, b_i, c, right, n, seen.get(t, 0), 0.0, config)
        g, topics[t], seen[t] = state[:2], state[2:], seen.get(t, 0) + 1
    return g, topics
