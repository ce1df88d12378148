"""Other engines, each a small program in its own idiom and its own environment."""
