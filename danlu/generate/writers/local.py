"""The policy itself, in this process."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import PositiveInt

from danlu.core.errors import MemoryLimit
from danlu.generate.base import GenerationConfig
from danlu.generate.groups import groups
from danlu.generate.writers.base import Desk, Draft, Pen, Writer


class Local(Writer):
    """Each prompt is read once for all its answers, and the next answer begins where one has ended."""

    at_once: PositiveInt = 64
    """answers that are written together: memory and speed depend on it"""

    def open(self, desk: Desk) -> Pen:
        """Nothing has to be loaded."""
        return Hand(desk, self.at_once)


@dataclass
class Hand(Pen):
    """Writes with the weights that the policy has at that moment."""

    desk: Desk
    at_once: int

    def __call__(self, prompts: Sequence[list[int]], count: int, config: GenerationConfig) -> list[list[Draft]]:
        """Each process writes its share."""
        ranks, problem = self.desk.ranks, None
        chance_PGN = torch.rand(len(prompts), count, config.max_tokens)  # of all, so that shares do not matter
        own, chance_AN = ranks.share(prompts), chance_PGN[ranks.rank :: ranks.count].flatten(0, 1)
        try:
            found = self._groups(own, count, config, chance_AN)
            return ranks.dealt(ranks.gather(found))
        except torch.OutOfMemoryError as error:
            problem = str(error).partition("\n")[0]
        raise MemoryLimit(f"out of memory while answers were written ({problem}); lower objective.writer.at_once")

    def _groups(
        self, prompts: Sequence[list[int]], count: int, config: GenerationConfig, chance_AN: torch.Tensor
    ) -> list[list[Draft]]:
        desk = self.desk
        return groups(desk.policy, prompts, count, config, desk.stops, at_once=self.at_once, chance_AN=chance_AN)
