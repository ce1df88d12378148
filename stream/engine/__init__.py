"""The hot path: attempts folded into learners' rows, and what follows from them."""
