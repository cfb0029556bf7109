"""Models that need no network: SmolLM2-135M from a PyPI wheel, and tiny random ones of many architectures."""
