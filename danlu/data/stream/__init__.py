"""Streaming: rows are read, tokenised and packed on the way, for corpora larger than memory or disk."""
