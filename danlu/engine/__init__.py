"""The engine: one loop for every objective, with its optimisers, schedules, checkpoints and hooks."""
