"""What every objective answers; the loop asks nothing else."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NotRequired, Protocol, TypedDict

from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from danlu.core.parts import Part
from danlu.core.ranks import Ranks
from danlu.data.loader import Step
from danlu.data.packing import Pack
from danlu.models.adapters.base import Adapter
from danlu.models.critic import Critic
from danlu.models.policy import Policy
from danlu.models.scorer import Scorer
from danlu.samples import PreferencePair, Sample
from danlu.tokens.templates.base import Template


class Models(TypedDict):
    """What an objective computes with, by its role."""

    policy: Policy
    critic: NotRequired[Critic]


def together(models: Models) -> nn.ModuleDict:
    """All of them as one module, whose weights go by their model's role first."""
    return nn.ModuleDict(dict(models))  # type: ignore[arg-type]


@dataclass(slots=True)
class Loss:
    """A summed loss and what it sums over, so that micro-batches and ranks average exactly.

    total: scalar fp32 tensor with a graph. count: what it sums over (weighted tokens, pairs …).
    metrics: name -> (sum, count), both summed over the whole global batch before they are divided. values: name -> [n]
    numbers of which, on held-out data, mean and deviation are told and each may be kept.
    """

    total: Tensor
    count: float
    metrics: dict[str, tuple[Tensor | float, float]] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)

    def share(self, count: int) -> "Loss":
        """What each of several processes counts of the same loss."""
        if count == 1:
            return self
        metrics = {name: (total / count, size / count) for name, (total, size) in self.metrics.items()}
        return Loss(self.total / count, self.count / count, metrics, self.values)


@dataclass(frozen=True, slots=True)
class Words:
    """How a run's words become tokens, and how many of those are run at once.

    What learns of the policy is the `adapter`'s; in `folder` things may lie that other processes read. `ranks`: who
    trains together.
    """

    tokenizer: PreTrainedTokenizerFast
    template: Template
    pack_tokens: int
    adapter: Adapter
    folder: Path
    ranks: Ranks = field(default_factory=Ranks)


class Builder(Protocol):
    """What the engine offers an objective: it loads, places and shards the models that are asked for."""

    def policy(self) -> Policy:
        """The model that learns."""
        ...

    def scorer(self, scale: float = 1.0) -> Scorer:
        """The model that learns to give a number; `scale` is how large its new layer begins."""
        ...


class Objective(Part):
    """What is optimised: which samples it learns from, which models it needs, and its loss."""

    learns_from: ClassVar[tuple[type[Sample], ...]]
    writes: ClassVar[bool] = False
    """whether it learns from answers that are written meanwhile"""
    compares_steps: ClassVar[bool] = False
    """whether what a row teaches depends on the others of its step"""

    @property
    def answers(self) -> int:
        """Segments of a row, where memory is planned."""
        return 2 if PreferencePair in self.learns_from else 1

    @property
    def steps_per_batch(self) -> int:
        """Optimiser steps that are made of one batch of rows."""
        return 1

    @property
    def rows_made(self) -> int:
        """Rows that each row of the data becomes before it is learnt from."""
        return 1

    @property
    def tokens_added(self) -> int:
        """The most tokens by which such a row is longer."""
        return 0

    @property
    def precomputes(self) -> bool:
        """Whether log-probabilities of every row under a reference are worked out before the first step."""
        return False

    def computed_logps(self, policy: Policy, pack: Pack) -> Tensor:
        """[S] those log-probabilities, where the objective wants them."""
        raise NotImplementedError

    def refusal(self, adapter: Adapter, *, streaming: bool, quantized: bool) -> str | None:
        """Why it cannot learn so; None where it can."""
        return None

    def models(self, build: Builder) -> Models:
        """The models this objective needs; the engine builds, places and shards them."""
        return {"policy": build.policy()}

    def begin(self, models: Models, words: Words) -> "Learning":
        """Once in a run, before anything is learnt: what is set up for it beside the models."""
        return Learning(self, models)

    def steps(self, models: Models, loader: Iterable[Step]) -> Iterator[Step]:
        """Which packs make one optimiser step."""
        yield from loader

    def loss(self, models: Models, pack: Pack) -> Loss:
        """The loss of one pack, as a sum and a count."""
        raise NotImplementedError

    def measure(self, models: Models, pack: Pack) -> Loss:
        """What is measured on held-out data: the loss itself, unless an objective says otherwise."""
        return self.loss(models, pack)


class Learning:
    """An objective at work in one run: its models, and what it keeps beside them until the run ends."""

    measures_together: ClassVar[bool] = False
    """whether all processes measure the same pack at a time, and share the work of it"""

    def __init__(self, objective: Objective, models: Models) -> None:
        self.objective, self.models = objective, models

    def restore(self, cursor: dict[str, Any]) -> None:
        """Go on after the step that had this cursor, to which something may have been added here."""

    def steps(self, loader: Iterable[Step]) -> Iterator[Step]:
        """Which packs make one optimiser step."""
        yield from self.objective.steps(self.models, loader)

    def learnt(self, step: Step, metrics: Mapping[str, float]) -> None:
        """A step was made, and measured this over all devices; what later steps need of it goes into its cursor."""

    def close(self) -> None:
        """The run ends, or stops."""

    def measure(self, pack: Pack) -> Loss:
        """What is measured on held-out data."""
        return self.objective.measure(self.models, pack)
