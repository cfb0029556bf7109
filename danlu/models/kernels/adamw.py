"""AdamW's update of many tensors in one launch, with the copies that a model computes with: https://arxiv.org/abs/1711.05101

    g <- factor g,  m <- m + (1 - b1) (g - m),  v <- b2 v + (1 - b2) g^2
    p <- p - lr decay p - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)

as torch's own, but each number is read and written once: gradients come as they are, in bf16 or fp32, and p is rounded
into the model's weight, whose rows may lie apart. Where the factor is NaN nothing is changed, so that nobody has to
wait for a GPU to hear whether the gradients are numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from danlu.models.kernels.gpu import constexpr, tl, triton

CHUNK, BLOCK = 16384, 1024
"""numbers that a program updates, and at a time"""


@dataclass(slots=True, frozen=True)
class Slot:
    """One tensor: its value and moments in fp32, its gradient, and the model's copy, if that is another tensor."""

    value: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor
    copy: Tensor | None
    step: int
    """the number of this update, from 1"""


@dataclass(slots=True, frozen=True)
class Rates:
    """What all tensors of a launch share."""

    lr: float
    decay: float
    betas: tuple[float, float]
    eps: float


class AdamWUpdate:
    """Updates the same tensors step after step; what it tells the GPU of them is sent again only where it changed."""

    def __init__(self) -> None:
        self._known = np.zeros(0, np.int64)
        self._table = self._chunks = torch.empty(0, dtype=torch.int64)

    def __call__(self, slots: Sequence[Slot], rates: Rates, factor: Tensor) -> None:
        """All slots alike in the dtypes of gradients and copies; factor [] fp32, on their device."""
        device = slots[0].value.device
        self._tell([describe(slot) for slot in slots], device)
        beta, beta_2 = rates.betas
        corrections = np.array([(rates.lr / (1 - beta**one.step), (1 - beta_2**one.step) ** -0.5) for one in slots])
        copies = [slot.copy for slot in slots if slot.copy is not None]
        _update[(len(self._chunks),)](
            self._table, self._chunks, torch.from_numpy(corrections.astype(np.float32)).to(device), factor,
            1 - rates.lr * rates.decay, 1 - beta, beta_2, 1 - beta_2, rates.eps,
            CHUNK, BLOCK, kind_of(slots[0].gradient), kind_of(copies[0]) if copies else None,
            any(not copy.is_contiguous() for copy in copies), num_warps=4,
        )  # fmt: skip

    def _tell(self, rows: list[tuple[int, ...]], device: torch.device) -> None:
        """Send addresses and sizes, and which chunk of which tensor each program updates."""
        now = np.array(rows, np.int64)
        if np.array_equal(now, self._known):
            return
        self._known, self._table = now, torch.from_numpy(now).to(device)
        sizes = now[:, 5]
        counts = -(-sizes // CHUNK)
        which = np.repeat(np.arange(len(sizes)), counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        begins = (np.arange(len(which)) - first) * CHUNK
        self._chunks = torch.from_numpy(np.stack([which, begins], 1)).to(device)


def describe(slot: Slot) -> tuple[int, ...]:
    """Addresses of value, gradient, mean, square and copy; how many numbers, and a copy's columns and row stride."""
    tensors = slot.value, slot.gradient, slot.mean, slot.square
    assert all(tensor.is_contiguous() for tensor in tensors)
    addresses = [tensor.data_ptr() for tensor in tensors]
    if slot.copy is None:
        return *addresses, 0, slot.value.numel(), 1, 1
    columns = slot.copy.shape[-1] if slot.copy.ndim > 1 else slot.copy.numel()
    row = slot.copy.stride(-2) if slot.copy.ndim > 1 else columns
    assert slot.copy.is_contiguous() or (slot.copy.ndim == 2 and slot.copy.stride(-1) == 1)
    return *addresses, slot.copy.data_ptr(), slot.value.numel(), columns, row


def kind_of(tensor: Tensor):
    """Triton's word for a dtype."""
    return {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[tensor.dtype]


@torch.no_grad()
def plain_adamw_update(slots: Sequence[Slot], rates: Rates, factor: Tensor) -> None:
    """What `AdamWUpdate` must equal."""
    if factor.isnan():
        return
    for slot in slots:
        gradient = slot.gradient.float() * factor
        slot.mean.lerp_(gradient, 1 - rates.betas[0])
        slot.square.mul_(rates.betas[1]).addcmul_(gradient, gradient, value=1 - rates.betas[1])
        deviation = (slot.square / (1 - rates.betas[1] ** slot.step)).sqrt_() + rates.eps
        slot.value.mul_(1 - rates.lr * rates.decay)
        slot.value.addcdiv_(slot.mean, deviation, value=-rates.lr / (1 - rates.betas[0] ** slot.step))
        if slot.copy is not None:
            slot.copy.copy_(slot.value)


@triton.jit
def _update(
    table, chunks, corrections, factor, kept, mean_rate, square_kept, square_rate, eps,
    CHUNK: constexpr, BLOCK: constexpr, GRADIENT: constexpr, COPY: constexpr, APART: constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    which = tl.load(chunks + 2 * program)
    begin = tl.load(chunks + 2 * program + 1)
    row = table + 8 * which
    values = tl.load(row).to(tl.pointer_type(tl.float32))
    gradients = tl.load(row + 1).to(tl.pointer_type(GRADIENT))
    means = tl.load(row + 2).to(tl.pointer_type(tl.float32))
    squares = tl.load(row + 3).to(tl.pointer_type(tl.float32))
    rate = tl.load(corrections + 2 * which)
    widening = tl.load(corrections + 2 * which + 1)
    scale = tl.load(factor)
    size = tl.where(scale >= 0.0, tl.load(row + 5), 0)  # NaN is no such number
    for offset in range(0, CHUNK, BLOCK):
        at = begin + offset + tl.arange(0, BLOCK)
        real = at < size
        g = tl.load(gradients + at, mask=real, other=0.0).to(tl.float32) * scale
        m = tl.load(means + at, mask=real, other=0.0)
        m += mean_rate * (g - m)
        v = square_kept * tl.load(squares + at, mask=real, other=0.0) + square_rate * g * g
        p = kept * tl.load(values + at, mask=real, other=0.0) - rate * m / (tl.sqrt(v) * widening + eps)
        tl.store(means + at, m, mask=real)
        tl.store(squares + at, v, mask=real)
        tl.store(values + at, p, mask=real)
        if COPY is not None:
            copies = tl.load(row + 4).to(tl.pointer_type(COPY))
            if APART:
                columns = tl.load(row + 6)
                at = at // columns * tl.load(row + 7) + at % columns
            tl.store(copies + at, p.to(COPY), mask=real)
