"""Faults on purpose while attempts are folded, and a comparison of everything afterwards."""
