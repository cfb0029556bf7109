"""Advantages from values, and what rewards become before. n: tokens of an answer."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt

import torch
from torch import Tensor

TINY = 1e-8


def estimated(rewards_n: Tensor, values_n: Tensor, gamma: float, lam: float) -> Tensor:
    """[n] generalised advantages, nothing being expected behind the last token: https://arxiv.org/abs/1506.02438"""
    later = torch.cat([values_n[1:], values_n.new_zeros(1)])
    deltas = (rewards_n + gamma * later - values_n).tolist()
    found, ahead = [], 0.0
    for delta in reversed(deltas):
        ahead = delta + gamma * lam * ahead
        found.append(ahead)
    return torch.tensor(found[::-1], dtype=rewards_n.dtype)


def whitened(parts: Sequence[Tensor]) -> list[Tensor]:
    """The same in deviations from the mean over all tokens; zeros where all are equal."""
    every = torch.cat(list(parts))
    if bool((every == every[0]).all()):
        return [torch.zeros_like(part) for part in parts]
    mean, deviation = every.mean(), every.std(correction=0)
    return [(part - mean) / (deviation + TINY) for part in parts]


def explained(values: Tensor, returns: Tensor) -> float:
    """The share of the returns' variance that values knew of; 0 where returns do not vary."""
    spread = returns.var(correction=0)
    return float(1 - (returns - values).var(correction=0) / spread) if spread > 0 else 0.0


@dataclass(slots=True)
class Running:
    """Mean and deviation of all numbers so far: Chan, Golub and LeVeque 1979, in float64."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """sum of squared distances from the mean"""

    def add(self, numbers: Tensor) -> None:
        """Some more."""
        count = numbers.numel()
        mean = float(numbers.double().mean())
        apart, total = mean - self.mean, self.count + count
        self.squares += float((numbers.double() - mean).square().sum()) + apart**2 * self.count * count / total
        self.mean += apart * count / total
        self.count = total

    @property
    def deviation(self) -> float:
        """As of a sample; 1 as long as nothing varies."""
        return sqrt(self.squares / (self.count - 1)) if self.count > 1 and self.squares > 0 else 1.0

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)
