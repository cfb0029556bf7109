"""Data sets of the Hugging Face hub: an id becomes files on this disk. No script of theirs is ever run."""
