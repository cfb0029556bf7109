"""Log-probabilities of given tokens under `softmax(hidden @ weight.T)`, in chunks: the logits of a batch never exist.

For one token with hidden h, target y and probabilities p over the vocabulary:
    d logp / d h = W[y] - p W,   d logsumexp / d h = p W,   d mean(log p) / d h = mean(W) - p W
so one vector p W per token, computed on the way forward, gives every gradient of h for *any* later use of the outputs,
without a second pass over the vocabulary. Only a weight that learns needs the probabilities again (on the way back).

Shapes: N tokens, H hidden, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_BYTES = 64 << 20
"""fp32 logits held at a time: 64 MiB keeps a processor's cache and a GPU's allocator happy"""


@dataclass(slots=True, frozen=True)
class Shape:
    """What a model does to its logits after the product: `softcap * tanh(scale * logits / softcap)`."""

    scale: float = 1.0
    softcap: float | None = None


def plain_linear_logprob(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, shape: Shape = Shape()
) -> tuple[Tensor, Tensor, Tensor]:
    """What `linear_logprob` must equal: logp[N] of the targets, logsumexp[N], mean log-probability[N], all fp32."""
    logits = torch.nn.functional.linear(hidden, weight, bias).float() * shape.scale
    if shape.softcap is not None:
        logits = shape.softcap * torch.tanh(logits / shape.softcap)
    normalizer = logits.logsumexp(-1)
    chosen = logits.gather(-1, targets[:, None])[:, 0]
    return chosen - normalizer, normalizer, logits.mean(-1) - normalizer


def linear_logprob(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, shape: Shape = Shape()
) -> tuple[Tensor, Tensor, Tensor]:
    """hidden[N,H], weight[V,H], bias[V] or None, targets[N] -> logp[N], logsumexp[N], mean log-probability[N], fp32."""
    return LinearLogprob.apply(hidden, weight, bias, targets, shape)  # type: ignore[no-any-return]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
    """[n,V] fp32, scaled and capped."""
    if hidden.is_cuda and hidden.dtype != torch.float32:
        logits = torch.mm(hidden, weight.T, out_dtype=torch.float32)  # no rounding between the product and the softmax
    else:
        logits = (hidden @ weight.T).float()
    if bias is not None:
        logits += bias
    if shape.scale != 1.0:
        logits *= shape.scale
    if shape.softcap is not None:
        logits = logits.div_(shape.softcap).tanh_().mul_(shape.softcap)
    return logits


def _through_shape(d_logits: Tensor, logits: Tensor, shape: Shape) -> Tensor:
    """The gradient with respect to the raw product."""
    if shape.softcap is not None:
        d_logits = d_logits * (1 - (logits / shape.softcap) ** 2)
    return d_logits * shape.scale if shape.scale != 1.0 else d_logits


class LinearLogprob(torch.autograd.Function):
    """See the module's docstring for the gradients."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, shape: Shape):  # type: ignore[override]
        """A frozen, plain head keeps `W[y] - p W` and `p W` per token; any other recomputes its logits backwards."""
        quick = not (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]) and shape.softcap is None
        logp, normalizer, average = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(3))
        expected = torch.empty_like(hidden) if quick and ctx.needs_input_grad[0] else None
        for rows in _chunks(len(hidden), len(weight)):
            logits = _logits(hidden[rows], weight, bias, shape)
            lse = logits.logsumexp(-1)
            normalizer[rows] = lse
            logp[rows] = logits.gather(-1, targets[rows, None])[:, 0] - lse
            average[rows] = logits.mean(-1) - lse
            if expected is not None:
                expected[rows] = logits.sub_(lse[:, None]).exp_().to(weight.dtype) @ weight
        ctx.shape, ctx.quick = shape, quick
        ctx.save_for_backward(hidden, weight, bias, targets, expected if quick else normalizer)
        return logp, normalizer, average

    @staticmethod
    def backward(ctx, d_logp: Tensor, d_normalizer: Tensor, d_average: Tensor):  # type: ignore[override]
        """Gradients of hidden, weight and bias."""
        hidden, weight, bias, targets, kept = ctx.saved_tensors
        if not ctx.quick:
            return _slow_backward(ctx, hidden, weight, bias, targets, kept, (d_logp, d_normalizer, d_average))
        if kept is None:
            return None, None, None, None, None
        d_hidden = d_logp[:, None] * weight.index_select(0, targets)
        d_hidden += (d_normalizer - d_logp - d_average)[:, None] * kept
        if d_average.any():
            d_hidden += d_average[:, None] * weight.mean(0, dtype=torch.float32)
        return (d_hidden * ctx.shape.scale).to(hidden.dtype), None, None, None, None


def _slow_backward(ctx, hidden, weight, bias, targets, normalizer, grads):
    """Recompute each chunk's probabilities; needed when the head's own weight learns or its logits are capped."""
    d_logp, d_normalizer, d_average = grads
    d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
    d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
    d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and ctx.needs_input_grad[2] else None
    for rows in _chunks(len(hidden), len(weight)):
        logits = _logits(hidden[rows], weight, bias, ctx.shape)
        d_logits = (logits - normalizer[rows, None]).exp_().mul_((d_normalizer - d_logp - d_average)[rows, None])
        d_logits.add_(d_average[rows, None] / len(weight))
        d_logits.scatter_add_(-1, targets[rows, None], d_logp[rows, None])
        d_raw = _through_shape(d_logits, logits, ctx.shape)
        if d_bias is not None:
            d_bias += d_raw.sum(0)
        d_raw = d_raw.to(weight.dtype)
        if d_hidden is not None:
            d_hidden[rows] = d_raw @ weight
        if d_weight is not None:
            d_weight += d_raw.T @ hidden[rows]
    return d_hidden, _like(d_weight, weight), _like(d_bias, bias), None, None


def _like(grad: Tensor | None, of: Tensor | None) -> Tensor | None:
    return None if grad is None or of is None else grad.to(of.dtype)


def _chunks(num_tokens: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_BYTES // (4 * vocabulary))
    return [slice(a, min(a + size, num_tokens)) for a in range(0, num_tokens, size)]
