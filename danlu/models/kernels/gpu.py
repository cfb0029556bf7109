"""Triton, where it is installed. Without it the kernels can still be read: nothing on a processor launches them."""

import os
from contextlib import suppress
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

triton: Any = SimpleNamespace(jit=lambda function: function)
tl: Any = SimpleNamespace(constexpr=None)
if torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":  # else it would only cost time
    with suppress(ImportError):
        triton, tl = import_module("triton"), import_module("triton.language")

if TYPE_CHECKING:
    constexpr = int
else:
    constexpr = tl.constexpr
    """what a kernel is compiled for"""


def runs_kernels(x: Tensor) -> bool:
    """Whether a tensor lies where Triton's kernels run; elsewhere their plain twins do their work."""
    return x.is_cuda and hasattr(triton, "cdiv")


def wide(x: Tensor) -> Tensor:
    """In the precision that sums are made in: fp32, or fp64 where that is given."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def block_of(size: int) -> int:
    """The power of two that holds a whole row."""
    return 1 << (size - 1).bit_length()
