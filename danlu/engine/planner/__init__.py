"""The planner: what a run needs of a device's memory and how fast it goes, before any weight is there."""
