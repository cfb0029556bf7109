"""Modules whose weights are dealt out by rows among processes (torch's FSDP2), and which rows are whose."""

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def let_go(module: nn.Module) -> None:
    """Forget what was gathered of other processes' rows: the next forward gathers it as it is by then."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def own(tensor: Tensor) -> Tensor:
    """This process's rows, over the same memory; all of what is not dealt out."""
    own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return own.detach()


def rows_of(count: int, rank: int, ranks: int) -> tuple[int, int]:
    """Which of some rows are a process's own: all processes have as many, until there are no more."""
    each = -(-count // ranks)
    return min(rank * each, count), min((rank + 1) * each, count)
