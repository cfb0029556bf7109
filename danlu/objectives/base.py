"""What every objective answers; the loop asks nothing else."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from torch import Tensor

from danlu.core.parts import Part
from danlu.data.loader import Step
from danlu.data.packing import Pack
from danlu.models.policy import Policy
from danlu.samples import Sample

Models = dict[str, Policy]


@dataclass(slots=True)
class Loss:
    """A summed loss and what it sums over, so that micro-batches and ranks average exactly.

    total: scalar fp32 tensor with a graph. count: what it sums over (weighted tokens, pairs …).
    metrics: name -> (sum, count), both summed over the whole global batch before they are divided.
    """

    total: Tensor
    count: float
    metrics: dict[str, tuple[Tensor | float, float]] = field(default_factory=dict)


class Builder(Protocol):
    """What the engine offers an objective: it loads, places and shards the models that are asked for."""

    def policy(self) -> Policy:
        """The model that learns."""
        ...


class Objective(Part):
    """What is optimised: which samples it learns from, which models it needs, and its loss."""

    learns_from: ClassVar[tuple[type[Sample], ...]]

    def models(self, build: Builder) -> Models:
        """The models this objective needs; the engine builds, places and shards them."""
        return {"policy": build.policy()}

    def steps(self, models: Models, loader: Iterable[Step]) -> Iterator[Step]:
        """Which packs make one optimiser step."""
        yield from loader

    def loss(self, models: Models, pack: Pack) -> Loss:
        """The loss of one pack, as a sum and a count."""
        raise NotImplementedError

    def measure(self, models: Models, pack: Pack) -> Loss:
        """What is measured on held-out data: the loss itself, unless an objective says otherwise."""
        return self.loss(models, pack)
