"""Optimisers: how gradients become updates."""
