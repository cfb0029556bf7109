"""Public data sets onto this disk: downloads that go on where they stopped, are checked, and are made into one file."""
