"""Calibration: triggers, observations, the fit's client, applying its result."""
