"""Answers that others have drawn than the policy of now: they count by how much likelier they are under the policy.

The others are its weights of some steps ago, or the same weights in another program's numerics. Truncated importance
sampling (Ionides, 2008). n: tokens of an answer.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, PositiveFloat

from danlu.core.parts import Config
from danlu.objectives._answers import CORRECTION, LOGPS, Row


class Correction(Config):
    """A loss is multiplied by the policy's probability over the writer's, where that is known."""

    cap: PositiveFloat = 2.0
    """the most that a ratio counts"""
    level: Literal["token", "answer"] = "token"
    """the ratio of each token, or of the whole answer at all of its tokens"""
    mask_above: float | None = Field(default=None, gt=1)
    """nothing is learnt from an answer whose own ratio is above this or below its inverse; no bound without"""

    def correct(self, rows: Sequence[Row], drawn: Sequence[list[float] | None]) -> dict[str, float]:
        """Let rows know what their tokens are multiplied by; how far the two are apart. `drawn` is the writer's."""
        apart, capped, masked, tokens = 0.0, 0, 0, 0
        for row, theirs in zip(rows, drawn, strict=True):
            logps_n = torch.tensor(row.told[LOGPS], dtype=torch.float64)
            theirs_n = torch.full_like(logps_n, torch.nan) if theirs is None else torch.tensor(theirs).to(logps_n)
            log_ratios_n = (logps_n - theirs_n).nan_to_num(nan=0.0)  # what nobody knows is not corrected
            ratio = log_ratios_n.sum().exp()
            ratios_n = log_ratios_n.exp() if self.level == "token" else ratio.expand_as(log_ratios_n)
            weights_n = ratios_n.clamp(max=self.cap)
            if self.mask_above is not None and not 1 / self.mask_above <= ratio <= self.mask_above:
                weights_n = torch.zeros_like(weights_n)
                masked += 1
            row.told[CORRECTION] = weights_n.tolist()
            apart += log_ratios_n.abs().sum().item()
            capped += int((ratios_n > self.cap).sum())
            tokens += int(theirs_n.isfinite().sum())
        told = {"staleness": apart / max(tokens, 1), "capped": capped / max(tokens, 1)}
        return told if self.mask_above is None else told | {"masked": masked / len(rows)}
