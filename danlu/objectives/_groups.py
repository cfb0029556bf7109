"""Rewards of answers to the same prompt become advantages. N: prompts, G: answers to each."""

import torch
from torch import Tensor

EPS = 1e-4
"""keeps a group whose rewards hardly differ from being blown up"""


def ahead(rewards_NG: Tensor) -> Tensor:
    """[N,G] above the mean of the group; exactly 0 where all are equal, whatever the mean is rounded to."""
    alike = (rewards_NG == rewards_NG[:, :1]).all(dim=1, keepdim=True)
    return torch.where(alike, 0.0, rewards_NG - rewards_NG.mean(dim=1, keepdim=True))


def deviations(rewards_NG: Tensor) -> Tensor:
    """[N,1] of each group, as of a sample; 0 where all are equal."""
    alike = (rewards_NG == rewards_NG[:, :1]).all(dim=1, keepdim=True)
    return torch.where(alike, 0.0, rewards_NG.std(dim=1, keepdim=True))
