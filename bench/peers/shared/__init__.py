"""What the Python peers share; the only thing on their path besides their environment."""
