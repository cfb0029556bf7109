"""Recipes that come with danlu, one YAML file each."""
