"""Plans for one recipe: the same outlines asked for packs of any size, with any number of blocks recomputed."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from math import ceil

import torch

from danlu.data.packing import Pack
from danlu.engine.config import EngineConfig
from danlu.engine.engine import arrange
from danlu.engine.offload import Offload
from danlu.engine.planner.footprint import Footprint, footprint
from danlu.engine.planner.holdings import Holdings, Moved, Parallel, holdings, largest_part
from danlu.engine.planner.live import META, AsIfOn, Live
from danlu.engine.planner.plan import Choice, Device, Plan
from danlu.models.adapters.base import Adapter
from danlu.models.blocks import blocks_of
from danlu.models.load import ModelConfig
from danlu.models.masters import Masters
from danlu.models.outline import Outline, ScorerOutline, adapted, outline, outline_pack
from danlu.objectives.base import Loss, Models, Objective, together

log = logging.getLogger(__name__)

MOST_TOKENS = 16384
"""packs above this size make no step faster"""
MOST_TOKENS_CPU = 2048
"""and on a processor above this one"""


class OutlineBuilder:
    """Gives an objective the outlines of the models that it asks for."""

    def __init__(self, model: ModelConfig, adapter: Adapter) -> None:
        self.model, self.adapter = model, adapter

    def policy(self) -> Outline:
        """The model that learns."""
        with Live():
            return Outline(adapted(outline(self.model), self.adapter)).train()  # type: ignore[arg-type]

    def scorer(self, scale: float = 1.0) -> ScorerOutline:
        """The model that learns to give a number."""
        with Live():
            return ScorerOutline(adapted(outline(self.model, scores=True), self.adapter)).train()  # type: ignore[arg-type]


class Planner:
    """What a recipe needs of a kind of device, of which `ranks` share the run as the recipe says.

    `longest` is the most tokens of a row, `most` those of a device's share of the global batch: no pack is smaller than
    the one or need be larger than the other.
    """

    def __init__(
        self,
        build: OutlineBuilder,
        objective: Objective,
        engine: EngineConfig,
        dtype: torch.dtype,
        device: Device,
        *,
        longest: int,
        most: int,
        ranks: int = 1,
    ) -> None:
        self.build, self.objective, self.engine, self.dtype, self.device = build, objective, engine, dtype, device
        self.longest, self.most, self.ranks = longest, max(longest, most), ranks
        models: Models = objective.models(build)  # type: ignore[arg-type]
        self.models: dict[str, Outline] = models  # type: ignore[assignment]
        self.policy = self.models["policy"]
        self.masters = Masters(together(models), dtype)
        self.as_if = AsIfOn(device.kind, device.capability)
        self._arrange()
        self.num_blocks = len(blocks_of(self.policy.inner)[1])
        self.activation_factor = 1.0
        """what measuring has shown activations to be, in predictions"""
        self._footprints: dict[int, Footprint] = {}

    def on(self, build: OutlineBuilder) -> "Planner":
        """The same for other models."""
        rows = {"longest": self.longest, "most": self.most, "ranks": self.ranks}
        return Planner(build, self.objective, self.engine, self.dtype, self.device, **rows)

    def _arrange(self) -> None:
        """Let the blocks run as they will on the device, as far as that can be known without one."""
        self.beside = 0.0
        """bytes that blocks hold beside their weights, such as a second order of the same numbers"""
        try:
            with Live() as live, self.as_if:
                arrange(
                    self.engine, self.policy, self.device.kind, dealt=self.ranks > 1 and self.engine.parallel.in_step
                )
            self.beside = live.beyond((*self.policy.parameters(), *self.policy.buffers()))
        except (RuntimeError, AssertionError) as error:
            log.info("blocks are planned operation by operation: %s", str(error).partition("\n")[0])

    @cached_property
    def holdings(self) -> Holdings:
        """What one device alone would hold all the time."""
        return holdings(self.models, self.masters, self.engine.optimizer, self.beside)

    @property
    def held(self) -> Holdings:
        """What each device holds all the time."""
        parallel = self.engine.parallel
        return self.holdings if self.ranks == 1 else self.dealt(parallel.stage, self.ranks, parallel.moved)

    def dealt(self, parallel: Parallel, ranks: int, offload: Moved = "none") -> Holdings:
        """Each device's share among several."""
        return self.holdings.dealt(parallel, ranks, offload, largest_part(self.policy))

    def footprint(self, tokens: int) -> Footprint:
        """What a pack of so many tokens takes, in rows as long as any may be."""
        if tokens not in self._footprints:
            rows = [self.longest] * (tokens // self.longest)
            rows = [*rows, *filter(None, [tokens - sum(rows)])]
            answers = self.objective.answers
            pack = outline_pack([max(1, row // answers) for row in rows for _ in range(answers)], answers)
            self._footprints[tokens] = footprint(self.models, self.masters, self._loss, pack, self.as_if)
        return self._footprints[tokens]

    def _loss(self, models: Models, pack: Pack) -> Loss:
        """The objective's, with the way to the host and back that the recipe wants."""
        if not (self.engine.offload_activations and self.device.kind == "cuda"):
            return self.objective.loss(models, pack)
        with Offload(together(models).state_dict().values(), META):
            return self.objective.loss(models, pack)

    def plan(self, choice: Choice, held: Holdings | None = None) -> Plan:
        """The plan of one choice."""
        found = self.footprint(choice.pack_tokens)
        kept = found.kept(choice.recomputed)
        working = found.peak(choice.recomputed) - kept
        held = held or self.held
        return Plan(choice, self.device, held, kept, working, self.num_blocks, found.kept(0), self.activation_factor)

    @property
    def sizes(self) -> list[int]:
        """Sizes of packs worth trying, largest first: the rows' longest, doubled as long as that makes steps faster."""
        most = min(self.most, MOST_TOKENS if self.device.kind == "cuda" else MOST_TOKENS_CPU)
        doubled = [self.longest * 2**power for power in range(32)]
        return [size for size in reversed(doubled) if size <= max(most, self.longest)]

    def recomputed(self, setting: str | int) -> int:
        """How many blocks a recipe's `gradient_checkpointing` recomputes; auto begins with none."""
        return {"none": 0, "auto": 0, "full": self.num_blocks}.get(str(setting), setting)  # type: ignore[return-value]

    def choices(self, pack_tokens: int | str, checkpointing: int | str) -> Iterator[Choice]:
        """What may be chosen where a recipe says auto, fastest first."""
        sizes = self.sizes if isinstance(pack_tokens, str) else [max(pack_tokens, self.longest)]
        if checkpointing != "auto":
            yield from (Choice(size, self.recomputed(checkpointing)) for size in sizes)
            return
        yield from (Choice(size, 0) for size in sizes)
        yield from (Choice(size, count) for size in sizes[-1:] for count in range(1, self.num_blocks + 1))

    def choose(self, pack_tokens: int | str, checkpointing: int | str, held: Holdings | None = None) -> Plan:
        """The first plan that fits, or the smallest."""
        plans = [self.plan(choice, held) for choice in self.choices(pack_tokens, checkpointing)]
        return next((plan for plan in plans if plan.fits), min(plans, key=lambda plan: plan.needed))


def smaller(choice: Choice, num_blocks: int, longest: int) -> Choice | None:
    """The next step down: a quarter of the blocks more recomputed, then packs of half the size; none is the end."""
    if choice.recomputed < num_blocks:
        return replace(choice, recomputed=min(num_blocks, choice.recomputed + ceil(num_blocks / 4)))
    if choice.pack_tokens > longest:
        return replace(choice, pack_tokens=max(longest, choice.pack_tokens // 2))
    return None
