"""Models: found, loaded, adapted, run and saved."""
