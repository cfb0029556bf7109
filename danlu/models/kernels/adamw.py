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


@dataclass(slots=True)
class Slot:
    """One tensor: its value and moments in fp32, its gradient, and the model's copy, if that is another tensor.

    `step` is the number of this update, from 1; `decay` the share of the value that goes before it, times the rate.
    """

    value: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor
    copy: Tensor | None
    step: int
    lr: float
    decay: float


class AdamWUpdate:
    """Updates the same tensors step after step; what the GPU knows of their sizes is told again only if they change."""

    def __init__(self, betas: tuple[float, float], eps: float) -> None:
        self.betas, self.eps = betas, eps
        self._known = np.zeros(0, np.int64)
        self._sizes = self._chunks = torch.empty(0, dtype=torch.int64)

    def __call__(self, slots: Sequence[Slot], factor: Tensor) -> None:
        """All slots alike in the dtypes of gradients and copies; factor [] fp32, on their device."""
        device, (beta, beta_2) = slots[0].value.device, self.betas
        self._tell(np.array([sizes(slot) for slot in slots], np.int64), device)
        places = np.array([addresses(slot) for slot in slots], np.int64)
        rates = np.array([(slot.lr, slot.lr * slot.decay, slot.step) for slot in slots])
        step = rates[:, 2]
        own = np.stack([rates[:, 0] / (1 - beta**step), (1 - beta_2**step) ** -0.5, 1 - rates[:, 1]], 1)
        copies = [slot.copy for slot in slots if slot.copy is not None]
        _update[(len(self._chunks),)](
            on(places, device), self._sizes, self._chunks, on(own.astype(np.float32), device), factor,
            1 - beta, beta_2, 1 - beta_2, self.eps,
            CHUNK, BLOCK, kind_of(slots[0].gradient), kind_of(copies[0]) if copies else None,
            any(not copy.is_contiguous() for copy in copies), num_warps=4,
        )  # fmt: skip

    def _tell(self, sizes: np.ndarray, device: torch.device) -> None:
        """Send the sizes, and which chunk of which tensor each program updates."""
        if np.array_equal(sizes, self._known):
            return
        self._known, self._sizes = sizes, on(sizes, device)
        counts = -(-sizes[:, 0] // CHUNK)
        which = np.repeat(np.arange(len(sizes)), counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        self._chunks = on(np.stack([which, (np.arange(len(which)) - first) * CHUNK], 1), device)


def on(values: np.ndarray, device: torch.device) -> Tensor:
    """An array on a device, which this process does not wait for."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def addresses(slot: Slot) -> tuple[int, ...]:
    """Of value, gradient, mean, square and copy."""
    copy = 0 if slot.copy is None else slot.copy.data_ptr()
    value, gradient, mean, square = slot.value, slot.gradient, slot.mean, slot.square
    return value.data_ptr(), gradient.data_ptr(), mean.data_ptr(), square.data_ptr(), copy


def sizes(slot: Slot) -> tuple[int, int, int]:
    """How many numbers, and a copy's columns and row stride."""
    number, copy = slot.value.numel(), slot.copy
    assert all(one.is_contiguous() for one in (slot.value, slot.gradient, slot.mean, slot.square))
    if copy is None or copy.ndim < 2:
        return number, 1, 1
    assert copy.ndim == 2 or copy.is_contiguous()
    return number, copy.shape[-1], copy.stride(-2)


def kind_of(tensor: Tensor):
    """Triton's word for a dtype."""
    return {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[tensor.dtype]


@torch.no_grad()
def plain_adamw_update(slots: Sequence[Slot], betas: tuple[float, float], eps: float, factor: Tensor) -> None:
    """What `AdamWUpdate` must equal."""
    if factor.isnan():
        return
    for slot in slots:
        gradient = slot.gradient.float() * factor
        slot.mean.lerp_(gradient, 1 - betas[0])
        slot.square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        deviation = (slot.square / (1 - betas[1] ** slot.step)).sqrt_() + eps
        slot.value.mul_(1 - slot.lr * slot.decay)
        slot.value.addcdiv_(slot.mean, deviation, value=-slot.lr / (1 - betas[0] ** slot.step))
        if slot.copy is not None:
            slot.copy.copy_(slot.value)


@triton.jit
def _update(
    places, sizes, chunks, rates, factor, mean_rate, square_kept, square_rate, eps,
    CHUNK: constexpr, BLOCK: constexpr, GRADIENT: constexpr, COPY: constexpr, APART: constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    which = tl.load(chunks + 2 * program)
    begin = tl.load(chunks + 2 * program + 1)
    values = tl.load(places + 5 * which).to(tl.pointer_type(tl.float32))
    gradients = tl.load(places + 5 * which + 1).to(tl.pointer_type(GRADIENT))
    means = tl.load(places + 5 * which + 2).to(tl.pointer_type(tl.float32))
    squares = tl.load(places + 5 * which + 3).to(tl.pointer_type(tl.float32))
    rate = tl.load(rates + 3 * which)
    widening = tl.load(rates + 3 * which + 1)
    kept = tl.load(rates + 3 * which + 2)
    scale = tl.load(factor)
    size = tl.where(scale >= 0.0, tl.load(sizes + 3 * which), 0)  # NaN is no such number
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
            copies = tl.load(places + 5 * which + 4).to(tl.pointer_type(COPY))
            if APART:
                columns = tl.load(sizes + 3 * which + 1)
                at = at // columns * tl.load(sizes + 3 * which + 2) + at % columns
            tl.store(copies + at, p.to(COPY), mask=real)
