"""Weights, gradients and optimiser states dealt out by rows among processes, by torch's FSDP2.

https://arxiv.org/abs/2304.11277; the stages are ZeRO's: https://arxiv.org/abs/1910.02054
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from danlu.core.errors import SetupError
from danlu.core.ranks import Ranks
from danlu.engine.parallel.base import Parallel
from danlu.models.blocks import blocks_of
from danlu.models.dealt import let_go
from danlu.models.dealt_masters import DealtMasters
from danlu.models.masters import Masters
from danlu.models.quantized_linear import quantized_layers
from danlu.objectives.base import Models
from danlu.objectives.base import together as as_one


class Sharded(Parallel):
    """Each process holds the rows of every weight that are its own, and gathers a block's others as it needs them."""

    in_step: ClassVar[bool] = True
    gathered: ClassVar[bool] = False
    """whether weights stay together from the first forward of a step to its last backward"""
    sums_once: ClassVar[bool] = False
    """whether gradients are dealt out after the last pack of a step only"""

    offload: Literal["none", "optimizer", "params"] = "none"
    """what a GPU leaves in the host's memory, where it is updated: the optimiser's share, or with it the weights"""

    @property
    def moved(self) -> Literal["none", "optimizer", "all"]:
        """See `Parallel`."""
        return "all" if self.offload == "params" else self.offload

    @property
    def needs_rows(self) -> str | None:
        """See `Parallel`."""
        return "leaves each process some rows of every weight"

    def deal(self, models: Models, dtype: torch.dtype, ranks: Ranks) -> None:
        """See `Parallel`."""
        policy = models["policy"]
        device = policy.device
        if not policy.packed:
            raise SetupError(
                f"engine.parallel: {type(policy.inner).__name__} reads segments one after another, and processes that "
                "have dealt out its weights must make as many forwards; say ddp"
            )
        policy.computes_on = device
        for layer in quantized_layers(policy):
            layer.to(dtype)
        for parameter in policy.parameters():
            if parameter.is_floating_point() and not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
            elif parameter.requires_grad:
                parameter.data = parameter.data.float()
        moves = self.offload == "params" and device.type != "cpu"  # on a processor everything is there already
        options: dict[str, Any] = {
            "mesh": init_device_mesh(device.type, (ranks.count,)),
            "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False),
            "offload_policy": CPUOffloadPolicy() if moves else OffloadPolicy(),
        }
        for block in blocks_of(policy.inner)[1]:
            fully_shard(block, reshard_after_forward=not self.gathered, **options)
        fully_shard(policy, reshard_after_forward=False, **options)
        register_fsdp_forward_method(policy, "body")
        with torch.no_grad():  # whose forward is the first is the whole to torch, also where others run parts of it
            policy.body(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
        let_go(policy)
        if policy.remembers:
            policy.remember()  # by rows too
        for part in parts_of(policy):
            part.set_gradient_divide_factor(1.0)  # losses are sums
            part.set_force_sum_reduction_for_comms(True)
        [*blocks, rest] = sorted(parts_of(policy), key=lambda part: part is policy)
        policy.gathered = partial(together, blocks, rest, self.gathered)

    def masters(self, models: Models, dtype: torch.dtype, ranks: Ranks) -> Masters:
        """See `Parallel`."""
        return DealtMasters(as_one(models), dtype, ranks, on_host=self.offload == "optimizer")

    def begin_pack(self, models: Models, *, last: bool) -> None:
        """See `Parallel`."""
        policy = models["policy"]
        assert isinstance(policy, FSDPModule)
        if self.sums_once:
            policy.set_requires_gradient_sync(last)
        if self.gathered:
            policy.set_reshard_after_backward(last)


def parts_of(module: nn.Module) -> list[FSDPModule]:
    """Everything that is dealt out on its own, and what is left of the whole."""
    return [each for each in module.modules() if isinstance(each, FSDPModule)]


@contextmanager
def together(blocks: list[FSDPModule], rest: FSDPModule, stay: bool) -> Iterator[None]:
    """Inside, every process has all weights, and none waits for another; in steps those of blocks `stay` together."""
    for part in (*blocks, rest):
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in blocks:
            part.set_reshard_after_forward(not stay, recurse=False)
        for part in (*blocks, rest):
            part.reshard()
