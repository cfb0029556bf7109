"""Runs: one file for each verb, to be read from top to bottom."""
