"""Adapters translate vendors' words to ours and back; they decide nothing."""
