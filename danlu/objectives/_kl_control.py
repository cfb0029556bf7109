"""A penalty's coefficient that brings a divergence to a target: https://arxiv.org/abs/1909.08593, section 2.2"""

MOST = 0.2
"""the largest error that a correction heeds"""


def corrected(beta: float, kl: float, target: float, weight: float) -> float:
    """The next coefficient: a proportional controller in log space. `weight` is the correction for an error of 1."""
    error = min(max(kl / target - 1, -MOST), MOST)
    return beta * (1 + weight * error)
