"""Log-probabilities of given tokens under `softmax(hidden @ weight.T)`, in chunks: the logits of a batch never exist.

For one token with hidden h, target y and probabilities p over the vocabulary:
    d logp / d h = W[y] - p W,   d logsumexp / d h = p W,   d mean(log p) / d h = mean(W) - p W
so one vector p W per token, computed on the way forward, gives every gradient of h for *any* later use of the outputs,
without a second pass over the vocabulary. Only a weight that learns needs p itself on the way back.

Shapes: N tokens, H hidden, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from danlu.models.kernels.row_softmax import row_softmax

CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}
"""fp32 logits held at a time: few enough for a processor's caches, enough rows for a GPU's products"""
KEPT_BYTES = {"cpu": 128 << 20, "cuda": 4 << 30}
"""probabilities kept for the gradient of a weight that learns; those of more tokens are computed again"""


@dataclass(slots=True, frozen=True)
class Shape:
    """What a model does to its logits after the product: `softcap * tanh(scale * logits / softcap)`."""

    scale: float = 1.0
    softcap: float | None = None

    def at(self, temperature: float) -> "Shape":
        """The same with the logits divided by a temperature."""
        softcap = None if self.softcap is None else self.softcap / temperature
        return Shape(self.scale / temperature, softcap)


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
    learns = torch.is_grad_enabled()
    return LinearLogprob.apply(hidden, weight, bias, targets, shape, learns)  # type: ignore[no-any-return]


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


class LinearLogprob(torch.autograd.Function):
    """See the module's docstring for the gradients. Capped logits have others, and are computed again backwards."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, shape: Shape, learns: bool
    ):
        """Keeps `p W` of each token where hidden learns, and p of as many as fit where the weight does."""
        smooth = learns and shape.softcap is None  # within a node nobody can see whether there is a way back
        learns = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        logp, normalizer, average = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(3))
        expected = torch.empty_like(hidden) if smooth and ctx.needs_input_grad[0] else None
        room = _of_device(KEPT_BYTES, weight) // (len(weight) * weight.element_size()) if smooth and learns else 0
        kept = weight.new_empty(min(room, len(hidden)), len(weight))
        for rows in _chunks(hidden, weight):
            wanted = expected is not None or rows.start < len(kept)
            logits = _logits(hidden[rows], weight, bias, shape)
            whole = rows.stop <= len(kept)  # all of the chunk are kept: written where they stay
            probabilities = kept[rows] if whole else torch.empty_like(logits, dtype=weight.dtype) if wanted else None
            logp[rows], normalizer[rows], average[rows] = row_softmax(logits, targets[rows], probabilities)
            if probabilities is None:
                continue
            if not whole:
                kept[rows] = probabilities[: max(0, len(kept) - rows.start)]
            if expected is not None:
                torch.mm(probabilities, weight, out=expected[rows])
        ctx.shape = shape
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, weight, bias, targets, normalizer, expected, kept)
        return logp, normalizer, average

    @staticmethod
    def backward(ctx, *grads: Tensor | None):  # type: ignore[override]
        """Gradients of hidden, weight and bias. A gradient that is None is that of an output which nobody used."""
        hidden, weight, _, targets, normalizer, expected, _ = ctx.saved_tensors
        zeros = torch.zeros_like(normalizer)
        if ctx.shape.softcap is not None:
            return _capped_backward(ctx, *(zeros if grad is None else grad for grad in grads))
        d_logp, d_normalizer, d_average = (None if grad is None else grad * ctx.shape.scale for grad in grads)
        of_p = (zeros if d_normalizer is None else d_normalizer) - (zeros if d_logp is None else d_logp)
        of_p = of_p if d_average is None else of_p - d_average
        d_logp = zeros if d_logp is None else d_logp
        d_hidden = None
        if expected is not None:
            d_hidden = d_logp[:, None] * weight.index_select(0, targets)
            d_hidden += of_p[:, None] * expected
            if d_average is not None:
                d_hidden += d_average[:, None] * weight.mean(0, dtype=torch.float32)
            d_hidden = d_hidden.to(hidden.dtype)
        if not (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]):
            return d_hidden, None, None, None, None, None
        return d_hidden, *_of_weight_and_bias(ctx, of_p, d_logp, d_average), None, None, None


def _of_weight_and_bias(
    ctx, of_p: Tensor, d_logp: Tensor, d_average: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """d weight = p.T (of_p h) + (d_logp h at the targets) + mean(d_average h), and the same for a bias with h = 1."""
    hidden, weight, bias, targets, *_ = ctx.saved_tensors
    inputs = hidden if bias is None else torch.cat([hidden, torch.ones_like(hidden[:, :1])], 1)
    scaled = (of_p[:, None] * inputs).to(weight.dtype)
    total: Tensor | None = None
    for rows, probabilities in _probabilities(ctx):
        product = probabilities.T @ scaled[rows]
        total = product.float() if total is None else total.add_(product)  # a GPU adds tokens to it one by one
    if total is None:
        return torch.zeros_like(weight), None if bias is None else torch.zeros_like(bias)
    total.index_add_(0, targets, (d_logp[:, None] * inputs).to(total.dtype))
    if d_average is not None:
        total += ((d_average / len(weight)) @ inputs.float()).to(total.dtype)
    total = total.to(weight.dtype)
    return (total, None) if bias is None else (total[:, :-1], total[:, -1])


def _probabilities(ctx) -> Iterator[tuple[slice, Tensor]]:
    """p [n,V] of the tokens that were kept, then of the others, computed again."""
    hidden, weight, bias, _, normalizer, _, kept = ctx.saved_tensors
    if len(kept):
        yield slice(0, len(kept)), kept
    for rows in _chunks(hidden, weight, start=len(kept)):
        logits = _logits(hidden[rows], weight, bias, ctx.shape)
        yield rows, logits.sub_(normalizer[rows, None]).exp_().to(weight.dtype)


def _capped_backward(ctx, d_logp: Tensor, d_normalizer: Tensor, d_average: Tensor):
    """Each chunk's logits again, since what a cap lets through depends on each of them."""
    hidden, weight, bias, targets, normalizer, *_ = ctx.saved_tensors
    d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
    d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
    d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and ctx.needs_input_grad[2] else None
    for rows in _chunks(hidden, weight):
        logits = _logits(hidden[rows], weight, bias, ctx.shape)
        d_logits = (logits - normalizer[rows, None]).exp_().mul_((d_normalizer - d_logp - d_average)[rows, None])
        d_logits.add_(d_average[rows, None] / len(weight))
        d_logits.scatter_add_(-1, targets[rows, None], d_logp[rows, None])
        d_raw = d_logits.mul_(1 - (logits / ctx.shape.softcap) ** 2).mul_(ctx.shape.scale)
        if d_bias is not None:
            d_bias += d_raw.sum(0)
        d_raw = d_raw.to(weight.dtype)
        if d_hidden is not None:
            d_hidden[rows] = d_raw @ weight
        if d_weight is not None:
            d_weight += d_raw.T @ hidden[rows]
    return d_hidden, _like(d_weight, weight), _like(d_bias, bias), None, None, None


def _of_device(bytes_of: dict[str, int], x: Tensor) -> int:
    return bytes_of["cpu" if x.device.type == "cpu" else "cuda"]


def _like(grad: Tensor | None, of: Tensor | None) -> Tensor | None:
    return None if grad is None or of is None else grad.to(of.dtype)


def _chunks(hidden: Tensor, weight: Tensor, start: int = 0) -> list[slice]:
    size = max(1, _of_device(CHUNK_BYTES, hidden) // (4 * len(weight)))
    return [slice(a, min(a + size, len(hidden))) for a in range(start, len(hidden), size)]
