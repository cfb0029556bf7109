"""The MLPs of very long sequences, some tokens at a time and recomputed on the way back: less memory, same sums."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from danlu.models.blocks import blocks_of

TRIAL_TOKENS = 6


def chunk_mlps(model: nn.Module, width: int, tokens: int) -> int:
    """Let every part of a block that works on each token alone take so many at a time; returns how many there are.

    `width` is that of the hidden states. Parts are found by trying, not by name.
    """
    _, blocks = blocks_of(model)
    found = [child for block in blocks for child in block.children() if is_token_wise(child, width)]
    for child in found:
        child.forward = partial(chunked, child.forward, tokens)  # type: ignore[method-assign]
    return len(found)


def chunked(whole: Callable[[Tensor], Tensor], tokens: int, hidden: Tensor) -> Tensor:
    """[...,T,H] -> [...,T,H], where only one chunk's inner values exist at a time, there and back."""
    if hidden.shape[-2] <= tokens:
        return whole(hidden)
    if not torch.is_grad_enabled():
        return torch.cat([whole(piece) for piece in hidden.split(tokens, -2)], -2)
    pieces = [checkpoint(whole, piece, use_reentrant=False) for piece in hidden.split(tokens, -2)]
    return torch.cat(pieces, -2)  # type: ignore[arg-type]


@torch.no_grad()
def is_token_wise(part: nn.Module, width: int) -> bool:
    """Whether a part with linear layers gives for each token what it gives for it among others."""
    weights = [parameter for parameter in part.parameters() if parameter.ndim > 1]
    if len(weights) < 2:
        return False
    probe = torch.linspace(-1, 1, TRIAL_TOKENS * width, device=weights[0].device).view(1, TRIAL_TOKENS, width)
    probe = probe.to(next((weight.dtype for weight in weights if weight.is_floating_point()), torch.float32))
    training = part.training
    part.eval()
    try:
        whole, halves = part(probe), [part(half) for half in probe.split(TRIAL_TOKENS // 2, 1)]
        alike = isinstance(whole, Tensor) and whole.shape == probe.shape
        return alike and (whole.is_meta or near(torch.cat(halves, 1), whole))
    except (TypeError, ValueError, RuntimeError):
        return False  # it wants more than hidden states, as attention does
    finally:
        part.train(training)


def near(found: Tensor, expected: Tensor) -> bool:
    """As equal as products of other shapes are."""
    bound = 1e-4 if expected.dtype in (torch.float32, torch.float64) else 3e-2
    return bool((found - expected).norm() <= bound * expected.norm())
