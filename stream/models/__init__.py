"""Models of growth, forecast, churn and segments: one mechanism, a kind a file."""
