"""Foundations: parts, configuration, files, devices and words for people. Nothing here knows of language models."""
