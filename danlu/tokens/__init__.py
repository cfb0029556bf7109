"""Tokenizers, chat templates, and how messages become ids with a loss mask."""
