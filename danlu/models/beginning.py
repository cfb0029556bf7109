"""A model as it was before it learned: what learns is copied, everything else is shared with the model of now."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from danlu.core.errors import UserError
from danlu.models.dealt import own


class Beginning(nn.Module):
    """Copies of the weights that learn, beside the model; in no file, as a run begins from them each time."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for number, parameter in enumerate(learning):
            self.register_buffer(str(number), own(parameter).clone(), persistent=False)
        self._learning = tuple(learning)  # in a tuple, so that they are not this module's parameters too
        # a fused block holds its adapters' storage, which are small; torch holds that of weights that are dealt out
        self._in_place = isinstance(model, PeftModel) or any(isinstance(each, DTensor) for each in learning)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the model computes as it began. Nothing that needs a gradient may have been computed before."""
        kept = [self._kept(number, parameter) for number, parameter in enumerate(self._learning)]
        if self._in_place:
            now = [own(parameter).clone() for parameter in self._learning]
            self._copy(kept)
        else:
            now = self._exchange(kept)
        try:
            yield
        finally:
            self._copy(now) if self._in_place else self._exchange(now)

    def _kept(self, number: int, parameter: nn.Parameter) -> Tensor:
        """In the dtype that the model computes in by now."""
        name = str(number)
        if self._buffers[name].dtype != parameter.dtype:  # type: ignore[union-attr]
            self._buffers[name] = self._buffers[name].to(parameter.dtype)  # type: ignore[union-attr]
        return self._buffers[name]  # type: ignore[return-value]

    @torch.no_grad()
    def _copy(self, values: list[Tensor]) -> None:
        torch._foreach_copy_([own(parameter) for parameter in self._learning], values)

    def _exchange(self, values: list[Tensor]) -> list[Tensor]:
        before = [parameter.data for parameter in self._learning]
        for parameter, value in zip(self._learning, values, strict=True):
            parameter.data = value
        return before


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """Inside, the model computes without its adapter."""
    if not isinstance(model, PeftModel):
        raise UserError("objective.reference: base is the model without its adapter, and this one has none")
    with model.disable_adapter():
        yield
