"""Ways in which several processes share one run: its packs, and what each of them must hold of the model."""
