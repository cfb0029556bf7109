"""Quantizers: how frozen weights are stored."""
