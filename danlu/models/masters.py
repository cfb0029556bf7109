"""fp32 masters: a model may compute in bf16 or fp16, but what learns is kept, summed and updated in fp32."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from danlu.core.ranks import Ranks
from danlu.models.quantized_linear import quantized_layers

LAID_TOGETHER = 1 << 28
"""most numbers whose gradients lie in one tensor: those of adapters do; those of a whole model come one by one, as the
activations that they are made from go"""


class Masters:
    """The weights of a module that learn, by parameter name, in fp32.

    In fp32 a master is the parameter itself. In less, it is a copy: each backward gives its gradients to the copies and
    clears the parameters' own, and `publish` writes updated copies back into the parameters. The first gradient of a
    step stays as it came, which is exact and half as large; sums are fp32.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self._begin()
        learning = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        for name, parameter in learning.items():
            self.parameters[name] = parameter if dtype == torch.float32 else self._copy(parameter, dtype)
        self._lay_together()
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)
        for layer in quantized_layers(module):
            layer.to(dtype)  # what it is multiplied in; its codes stay

    def _begin(self) -> None:
        self._pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        self._together: Tensor | None = None
        self._places: list[Tensor] = []
        self.parameters: dict[str, nn.Parameter] = {}

    def _copy(self, parameter: nn.Parameter, dtype: torch.dtype) -> nn.Parameter:
        in_order = torch.contiguous_format  # updates take numbers as they lie
        master = nn.Parameter(parameter.detach().to(torch.float32, copy=True, memory_format=in_order))
        master.grad_dtype = None  # type: ignore[attr-defined]  # any
        parameter.data = parameter.data.to(dtype, memory_format=in_order)
        # the list, not self: a hook that held all parameters would keep them for ever, in a circle that gc cannot see
        number, places = len(self._pairs), self._places
        self._pairs.append((master, parameter))

        def add_gradient(parameter: Tensor) -> None:
            assert parameter.grad is not None
            if master.grad is None:
                master.grad = places[number].copy_(parameter.grad) if places else parameter.grad
            else:
                master.grad = master.grad.float().add_(parameter.grad)
            parameter.grad = None

        parameter.register_post_accumulate_grad_hook(add_gradient)
        return master

    def _lay_together(self) -> None:
        """Room for the gradients of small masters in one tensor: a GPU waits while it is told of hundreds."""
        masters = [master for master, _ in self._pairs]
        if not 0 < sum(master.numel() for master in masters) <= LAID_TOGETHER:
            return
        self._together = torch.zeros(sum(master.numel() for master in masters), device=masters[0].device)
        pieces = self._together.split([master.numel() for master in masters])
        self._places += [piece.view(master.shape) for piece, master in zip(pieces, masters, strict=True)]

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the weights that the model computes with."""
        if self._pairs:
            torch._foreach_copy_([parameter for _, parameter in self._pairs], [master for master, _ in self._pairs])

    @contextmanager
    def showing(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, the model computes with other values, given by name; the masters are the same bits afterwards."""
        shown = {id(self.parameters[name]): value for name, value in values.items()}
        copies = [(parameter, shown[id(master)]) for master, parameter in self._pairs if id(master) in shown]
        if not self._pairs:
            copies = [(self.parameters[name], value) for name, value in values.items()]
        before = [parameter.detach().clone() for parameter, _ in copies]
        try:
            for parameter, value in copies:
                parameter.data.copy_(value)
            yield
        finally:
            for (parameter, _), value in zip(copies, before, strict=True):
                parameter.data.copy_(value)

    @torch.no_grad()
    def load(self, values: dict[str, Tensor]) -> None:
        """Take saved values; every name must be there."""
        for name, master in self.parameters.items():
            master.copy_(values[name])
        self.publish()

    def state(self) -> dict[str, Tensor]:
        """fp32 values by parameter name."""
        return {name: master.detach() for name, master in self.parameters.items()}

    @property
    def copies(self) -> dict[nn.Parameter, nn.Parameter]:
        """What the model computes with, by master, where they are two."""
        return dict(self._pairs)

    def gradients(self) -> list[Tensor]:
        """The gradients that exist, in a fixed order; laid together, all at once, with zeros for those that do not."""
        found = [master.grad for master in self.parameters.values() if master.grad is not None]
        return found if self._together is None or not found else [self._together]

    def rows(self, name: str, rank: int) -> tuple[int, int] | None:
        """Which rows of a weight a process holds, the first and the one after the last; None: all of them."""
        return None

    def shape(self, name: str) -> torch.Size:
        """Of a whole weight."""
        return self.parameters[name].shape

    def whole(self, values: Mapping[str, Tensor], *, everything: bool = True) -> dict[str, Tensor]:
        """Values by name as wholes, where a process may hold some of their rows only.

        `everything`: with what does not learn, as far as that is dealt out too.
        """
        return dict(values)

    def apart(self) -> list[Tensor]:
        """Gradients of which every process has only what its own packs gave."""
        return self.gradients()

    def norm(self) -> Tensor:
        """The L2 norm of all gradients together, fp32 []."""
        return total_norm(self.gradients())

    def collect(self) -> None:
        """Make all gradients fp32, for those who want nothing else."""
        for master, _ in self._pairs:
            if master.grad is not None:
                master.grad = master.grad.float()

    def fill(self, ranks: Ranks) -> None:
        """Zeros where other processes have a gradient and this one has none; none stays where nobody has any."""
        masters = list(self.parameters.values())
        given = torch.tensor([master.grad is not None for master in masters], dtype=torch.int32)
        ranks.sum([given])
        for number, (master, some) in enumerate(zip(masters, given.tolist(), strict=True)):
            if some and master.grad is None:
                master.grad = self._places[number] if self._places else torch.zeros_like(master)

    def clear(self) -> None:
        """Forget all gradients."""
        for master in self.parameters.values():
            master.grad = None
        if self._together is not None:
            self._together.zero_()


@torch.no_grad()
def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """The L2 norm of all gradients together, fp32."""
    every = list(gradients)
    norms = torch._foreach_norm(every, 2, dtype=torch.float32) if every else ()
    return torch.stack(norms).norm() if norms else torch.zeros(())  # type: ignore[arg-type]
