"""Measuring models: held-out loss now; tasks, generation and choices as they come."""
