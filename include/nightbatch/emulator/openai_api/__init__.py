"""OpenAI's side: files, batches and the real-time calls behind them."""
