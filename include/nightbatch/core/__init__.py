"""The nouns of a batch night and their rules: pure, no I/O, no clock, no randomness."""
