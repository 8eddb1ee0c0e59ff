"""Anthropic's side: message batches and the real-time calls behind them."""
