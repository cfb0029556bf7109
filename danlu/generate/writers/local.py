"""The policy itself, in this process."""

from collections.abc import Sequence

import torch
from pydantic import PositiveInt

from danlu.core.errors import MemoryLimit
from danlu.generate.base import GenerationConfig
from danlu.generate.groups import groups
from danlu.generate.writers.base import Draft, Write, Writer
from danlu.models.policy import Policy


class Local(Writer):
    """Over transformers' generate: each prompt is read once for all its answers."""

    at_once: PositiveInt = 64
    """answers that are written together: memory and speed depend on it, and which ones are drawn"""

    def open(self, policy: Policy, stops: set[int]) -> Write:
        """Nothing has to be loaded."""

        def write(prompts: Sequence[list[int]], count: int, config: GenerationConfig) -> list[list[Draft]]:
            problem = None
            try:
                with policy.writing() as model:
                    return groups(model, prompts, count, config, stops, at_once=self.at_once)
            except torch.OutOfMemoryError as error:
                problem = str(error).partition("\n")[0]
            raise MemoryLimit(f"out of memory while answers were written ({problem}); lower objective.writer.at_once")

        return write
