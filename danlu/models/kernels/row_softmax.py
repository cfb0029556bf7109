"""Each row's softmax in two passes over its logits, with what a loss wants of it. Shapes: N rows, V vocabulary."""

import torch
from torch import Tensor

from danlu.models.kernels.gpu import constexpr, runs_kernels, tl, triton

BLOCK = 4096


def row_softmax(logits: Tensor, targets: Tensor, probabilities: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """logits [N,V] fp32, targets [N] -> log-probability of the target [N], logsumexp [N], mean log-probability [N].

    Fills `probabilities` [N,V], if given, in its own dtype.
    """
    if not runs_kernels(logits):
        return plain_row_softmax(logits, targets, probabilities)
    N, V = logits.shape
    logp, normalizer, average = torch.empty(3, N, dtype=torch.float32, device=logits.device)
    to = logits if probabilities is None else probabilities
    _softmax[(N,)](
        logits, targets, to, logp, normalizer, average, logits.stride(0), to.stride(0), V, BLOCK,
        probabilities is not None, -1e30, num_warps=8,
    )  # fmt: skip
    return logp, normalizer, average


def plain_row_softmax(logits: Tensor, targets: Tensor, probabilities: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What `row_softmax` must equal."""
    logps = logits.log_softmax(-1)
    logp = logps.gather(-1, targets[:, None])[:, 0]
    normalizer, average = logits.gather(-1, targets[:, None])[:, 0] - logp, logps.mean(-1)
    if probabilities is not None:
        probabilities.copy_(logps.exp_())
    return logp, normalizer, average


@triton.jit
def _softmax(
    logits, targets, probabilities, logp, normalizer, average, row_size, out_size,
    V: constexpr, BLOCK: constexpr, WRITES: constexpr, LOWEST: constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    highest = tl.full((BLOCK,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    plain = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, V, BLOCK):
        real = begin + at < V
        x = tl.load(logits + row * row_size + begin + at, mask=real, other=LOWEST)
        higher = tl.maximum(highest, x)
        total = total * tl.exp(highest - higher) + tl.where(real, tl.exp(x - higher), 0.0)
        highest = higher
        plain += tl.where(real, x, 0.0)
    top = tl.max(highest)
    log_sum = top + tl.log(tl.sum(total * tl.exp(highest - top)))
    tl.store(normalizer + row, log_sum)
    tl.store(average + row, tl.sum(plain) / V - log_sum)
    tl.store(logp + row, tl.load(logits + row * row_size + tl.load(targets + row)) - log_sum)
    if WRITES:
        for begin in range(0, V, BLOCK):
            real = begin + at < V
            x = tl.load(logits + row * row_size + begin + at, mask=real, other=LOWEST)
            tl.store(
                probabilities + row * out_size + begin + at,
                tl.exp(x - log_sum).to(probabilities.dtype.element_ty),
                mask=real,
            )
