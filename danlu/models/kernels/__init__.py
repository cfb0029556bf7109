"""Fused operations, one file each, with the plain torch they must equal."""
