"""How a step is run so that it fits: tokens at once and recomputed blocks, chosen, measured, changed on the way."""

import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch

from danlu.core.errors import MemoryLimit
from danlu.data.packing import Pack, refit
from danlu.engine.engine import Engine
from danlu.engine.overflow import UPDATE, Overflow
from danlu.engine.planner.plan import Choice, Plan
from danlu.engine.planner.planner import Planner, smaller
from danlu.engine.training import Training
from danlu.models.blocks import blocks_of
from danlu.objectives.base import together

log = logging.getLogger(__name__)

MEASURED_STEPS = 2
"""the first has no optimiser state yet"""
WORTH = 0.05
"""a measurement nearer to its prediction changes nothing"""


class Room:
    """What a recipe leaves open about memory, and what an overflow changes. Nothing here changes what is learnt.

    `plan` makes plans where the recipe says auto; without it the recipe's own settings hold until something overflows.
    """

    def __init__(
        self,
        engine: Engine,
        training: Training,
        *,
        pack_tokens: int | Literal["auto"],
        plan: Callable[[], Planner] | None = None,
    ) -> None:
        self.engine, self.training = engine, training
        self.pack_tokens = pack_tokens
        self.checkpointing = engine.config.gradient_checkpointing
        self.policy = training.models["policy"]
        self.num_blocks = len(blocks_of(self.policy.inner)[1])
        self.planner = plan() if plan is not None and self.is_open else None
        self.plan: Plan | None = None
        self.steps = 0
        if self.planner is not None:
            self.plan = self.planner.choose(pack_tokens, self.checkpointing)
            log.info("memory: %s", self.plan.describe())
        self.cuts = pack_tokens == "auto"
        """whether packs are made anew"""
        self.choice = self.plan.choice if self.plan else self._as_written()
        self.use(self.choice)
        if engine.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(engine.device)  # loading may have needed more than training will

    @property
    def peak(self) -> int | None:
        """The most that was allocated on a GPU."""
        return torch.cuda.max_memory_allocated(self.engine.device) if self.engine.device.type == "cuda" else None

    @property
    def is_open(self) -> bool:
        """Whether the recipe leaves anything to the device at hand."""
        return "auto" in (self.pack_tokens, self.checkpointing)

    def use(self, choice: Choice) -> None:
        """Run the next step so."""
        self.choice = choice
        if choice.recomputed or self.policy.inner.is_gradient_checkpointing:
            self.policy.recompute(choice.recomputed)

    def fitted(self, packs: list[Pack]) -> list[Pack]:
        """The packs of a step as they are run."""
        return refit(packs, self.choice.pack_tokens) if self.cuts else packs

    def make_room(self, overflow: Overflow, packs: list[Pack]) -> None:
        """Step to the next plan, or end the run where there is none. All ranks have heard of the same overflow."""
        rows = [sum(pack.lengths[row.start : row.stop]) for pack in packs for row in pack.rows]
        found = self.engine.ranks.gather((max(rows, default=0), max((pack.num_tokens for pack in packs), default=0)))
        longest, largest = max(rows for rows, _ in found), max(tokens for _, tokens in found)
        largest = min(self.choice.pack_tokens, largest)
        step = smaller(replace(self.choice, pack_tokens=largest), self.num_blocks, longest)
        self.forget()
        if overflow.term == UPDATE or step is None:
            raise MemoryLimit(self._refusal(overflow, longest))
        log.warning(
            "out of memory in %s (%s); the same global batch again, %d of %d blocks recomputed, packs of %d tokens",
            overflow.term, overflow.words, step.recomputed, self.num_blocks, step.pack_tokens,
        )  # fmt: skip
        self.cuts |= step.pack_tokens != largest
        self.use(step if step.pack_tokens != largest else replace(self.choice, recomputed=step.recomputed))

    def forget(self) -> None:
        """Drop partial gradients and what torch keeps for later."""
        self.training.masters.clear()
        together(self.training.models).zero_grad(set_to_none=True)
        gc.collect()
        if self.engine.device.type == "cuda":
            torch.cuda.empty_cache()

    def measure(self) -> None:
        """After the first steps on a GPU: the peak beside the plan, which is corrected where it was wrong."""
        self.steps += 1
        if self.plan is not None and self.peak is not None and self.steps == MEASURED_STEPS:
            self.correct(max(self.engine.ranks.gather(self.peak)))

    def correct(self, peak: float) -> None:
        """Blame activations for what a measured peak has more or less than the plan, and choose again."""
        assert self.plan is not None
        assert self.planner is not None
        changing = self.plan.activations + self.plan.working
        factor = max(0.1, (peak - (self.plan.peak - changing)) / changing)
        log.info("memory: %.2f GiB at most, %.2f planned", peak / 2**30, self.plan.peak / 2**30)
        if abs(peak / self.plan.peak - 1) < WORTH:
            return
        self.planner.activation_factor = factor
        self.plan = self.planner.choose(self.pack_tokens, self.checkpointing)
        if self.plan.choice != self.choice:
            log.info("memory: activations are %.2f of the plan; %s", factor, self.plan.describe())
            self.use(self.plan.choice)

    def _as_written(self) -> Choice:
        counts = {"none": 0, "auto": 0, "full": self.num_blocks}
        tokens = EVERYTHING if self.pack_tokens == "auto" else self.pack_tokens
        return Choice(tokens, counts.get(str(self.checkpointing), self.checkpointing))  # type: ignore[arg-type]

    def _refusal(self, overflow: Overflow, longest: int) -> str:
        if overflow.term == UPDATE:
            change = "an 8-bit optimiser (engine.optimizer=adamw8bit), adapter: lora or more GPUs take less"
        else:
            change = (
                f"every block is recomputed and packs are no longer than the longest row ({longest} tokens); "
                "a lower data.max_length, model.quantizer=nf4 or more GPUs take less"
            )
        return f"out of memory in {overflow.term} ({overflow.words}); {change}. `danlu plan` shows what would fit"


EVERYTHING = 1 << 30
"""tokens of a pack that nothing fills"""
