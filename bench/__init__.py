"""Measurements. Each writes JSON to ``bench/results``; none is a test."""
