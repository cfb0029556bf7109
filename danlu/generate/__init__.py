"""Generation: prompts in, answers out."""
