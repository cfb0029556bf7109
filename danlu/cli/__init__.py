"""The command line: verbs that write a recipe down and start a run. A run is imported only when its verb is chosen."""

from danlu.cli.app import main

__all__ = ["main"]
