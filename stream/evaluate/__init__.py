"""Evaluation: the live filter on real and simulated attempts, each prediction before its answer."""
