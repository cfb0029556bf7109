"""Masters of weights that are dealt out among processes: each learns the rows that are its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from danlu.core.ranks import Ranks
from danlu.models.dealt import let_go, own, rows_of
from danlu.models.masters import Masters, total_norm


class DealtMasters(Masters):
    """What FSDP2 has left to this process of the weights that learn, in fp32, as plain parameters over the same memory.

    The model computes with what is gathered of them, in less precision. What is not dealt out, every process has whole.
    `on_host`: the masters are copies in the host's memory, and so is all that an optimiser keeps of them.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, ranks: Ranks, *, on_host: bool = False) -> None:
        self._begin()
        self.on_host = on_host
        self.module, self.dtype, self.ranks = module, dtype, ranks
        learning = {name: each for name, each in module.named_parameters() if each.requires_grad}
        self._dealt = {name: each for name, each in learning.items() if isinstance(each, DTensor)}
        self._frozen = {
            name: each
            for name, each in module.named_parameters()
            if isinstance(each, DTensor) and not each.requires_grad
        }
        self.parameters = {
            name: nn.Parameter(self._placed(own(each))) if name in self._dealt else each
            for name, each in learning.items()
        }

    def _placed(self, value: Tensor) -> Tensor:
        """Where masters lie."""
        return value.to("cpu", copy=True) if self.on_host else value

    def rows(self, name: str, rank: int) -> tuple[int, int] | None:
        """The first row of a weight that is a process's own, and the one after its last; None where all are."""
        return rows_of(len(self._dealt[name]), rank, self.ranks.count) if name in self._dealt else None

    def shape(self, name: str) -> torch.Size:
        """See `Masters`."""
        return (self._dealt.get(name, self.parameters[name])).shape

    def whole(self, values: Mapping[str, Tensor], *, everything: bool = True) -> dict[str, Tensor]:
        """On the leading process's host; nothing on others. Every process must ask for the same.

        With everything, numbers are rounded to what the model computes in; masters of an adapter alone stay fp32.
        """
        others = {name: own(each) for name, each in self._frozen.items()} if everything else {}
        found = {}
        for name, value in {**others, **values}.items():
            like = self._dealt.get(name, self._frozen.get(name))
            if like is not None:
                mesh, shape = like.device_mesh, {"shape": like.shape, "stride": like.stride()}
                rows = DTensor.from_local(value.to(mesh.device_type), mesh, like.placements, **shape)
                value = rows.full_tensor()
            if self.ranks.leads:
                found[name] = value.to("cpu", self.dtype if everything and value.is_floating_point() else None)
        return found

    @contextmanager
    def showing(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """See `Masters`."""
        there = {name: own(self._dealt.get(name, self.parameters[name])) for name in values}
        before = {name: each.clone() for name, each in there.items()}
        try:
            self._put(there, values)
            yield
        finally:
            self._put(there, before)

    def publish(self) -> None:
        """Bring masters from the host to the model, and let go of what was gathered before."""
        if self.on_host:
            self._put({name: own(each) for name, each in self._dealt.items()}, self.parameters)
        else:
            let_go(self.module)

    @torch.no_grad()
    def _put(self, there: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        for name, place in there.items():
            place.copy_(values[name], non_blocking=True)
        let_go(self.module)

    def apart(self) -> list[Tensor]:
        """Gradients of what is whole everywhere; FSDP has summed the others."""
        found = [each.grad for name, each in self.parameters.items() if name not in self._dealt]
        return [gradient for gradient in found if gradient is not None]

    def norm(self) -> Tensor:
        """Each process's rows count once, and so does what all have."""
        dealt = [self.parameters[name].grad for name in self._dealt]
        squared = total_norm(gradient for gradient in dealt if gradient is not None).square()
        self.ranks.sum([squared])
        whole = total_norm(self.apart()).to(squared.device)
        return (squared + whole.square()).sqrt()

    def collect(self) -> None:
        """Take the rows of the gradients that FSDP has summed."""
        for name, parameter in self._dealt.items():
            gradient = parameter.grad
            self.parameters[name].grad = self._placed(own(gradient)) if gradient is not None else None
            parameter.grad = None

    def clear(self) -> None:
        """Forget all gradients."""
        super().clear()
        for parameter in self._dealt.values():
            parameter.grad = None
        let_go(self.module)
