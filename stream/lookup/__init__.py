"""The HTTP side: lookups, health, metrics."""
