"""What every way of sharing a run among processes answers: who holds what of the models, and who waits for whom."""

from datetime import timedelta
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import distributed
from torch.distributed import ProcessGroup

from danlu.core.errors import UserError
from danlu.core.parts import Folder, Part
from danlu.core.ranks import Ranks
from danlu.models.context import Context
from danlu.models.masters import Masters
from danlu.models.policy import Policy
from danlu.objectives.base import Models, together

Stage = Literal["ddp", "zero1", "zero2", "zero3"]


class Parallel(Part):
    """How processes share a run. Whatever the way, the global batch and what is learnt from it are the same."""

    stage: ClassVar[Stage] = "ddp"
    """what is dealt out, in the planner's words"""
    in_step: ClassVar[bool] = False
    """whether the forward and backward of one process wait for those of all others"""

    timeout_minutes: PositiveFloat = 60.0
    """how long a process waits for the others before the run ends"""
    context: PositiveInt = 1
    """processes that read each pack together, for rows that are too long for one; the heads are dealt out among them"""

    @property
    def moved(self) -> Literal["none", "optimizer", "all"]:
        """What waits in the host's memory, in the planner's words."""
        return "none"

    @property
    def timeout(self) -> timedelta:
        """The same as a time."""
        return timedelta(minutes=self.timeout_minutes)

    @property
    def needs_rows(self) -> str | None:
        """Why an optimiser must be able to update some rows of a weight alone; None where it need not."""
        return None

    def among(self, ranks: Ranks) -> "Parallel":
        """The way for so many processes: one shares with nobody."""
        return self if ranks.count > 1 else Parallel()

    def deal(self, models: Models, dtype: torch.dtype, ranks: Ranks) -> None:
        """Leave this process its share of the models that were built, which compute in a dtype from now on."""

    def masters(self, models: Models, dtype: torch.dtype, ranks: Ranks) -> Masters:
        """What learns of this process's share."""
        return Masters(together(models), dtype)

    def begin_pack(self, models: Models, *, last: bool) -> None:
        """Before the forward of each pack of a step."""


def reading_together(parallel: Parallel, policy: Policy, ranks: Ranks) -> Context | None:
    """With whom this process reads its packs; every process must ask."""
    size = parallel.context
    if size == 1 or ranks.count == 1:
        return None
    config = policy.inner.config.get_text_config()
    heads = config.num_attention_heads, getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    if ranks.count % size or any(each % size for each in heads):
        raise UserError(
            f"engine.parallel.context: {size} must divide the {ranks.count} processes, and the model's {heads[0]} "
            f"heads and {heads[1]} key heads"
        )
    if not policy.packed:
        raise UserError(f"engine.parallel.context: {type(policy.inner).__name__}'s attention cannot read packs; say 1")
    groups = [
        distributed.new_group(range(first, first + size), timeout=parallel.timeout)
        for first in range(0, ranks.count, size)
    ]
    own = groups[ranks.rank // size]
    assert isinstance(own, ProcessGroup)
    return Context(own, ranks.rank % size, size)


parallels = Folder("danlu.engine.parallel", Parallel)
