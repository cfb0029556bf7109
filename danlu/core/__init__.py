"""Foundations: parts, configuration, files, devices and words for people. Nothing here knows what a language model is."""
