"""Randomness that needs no memory: each step draws from its own seed, so a resumed run draws the same."""

import random

import numpy as np
import torch

EVERY_RANK = 1 << 20
"""instead of a rank, for what all ranks draw alike"""


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Set every generator from (seed, step, rank) alone: dropout and sampling do not depend on what came before."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(2, np.uint32)
    value = int(words[0]) << 32 | int(words[1])
    random.seed(value)
    np.random.seed(int(words[0]))
    torch.manual_seed(value & (2**63 - 1))
