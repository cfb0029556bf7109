"""A decoder block as one autograd node: norm, attention, norm, gated MLP, both with a residual, as Llama has them.

Every step writes where the next one reads, and what is saved is what the way back reads: nothing is copied or added on
the side. Shapes: T tokens, H hidden, n query heads, k key heads of size D.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from danlu.models.kernels.gated import gated, gated_backward
from danlu.models.kernels.linear_group import LinearGroup
from danlu.models.kernels.rms_norm import rms_norm, rms_norm_backward
from danlu.models.kernels.rotary import rotate
from danlu.models.kernels.segment_attention import Segments
from danlu.models.kernels.varlen_attention import attend, attend_backward


@dataclass(slots=True, frozen=True)
class GatedBlock:
    """The parts of a block."""

    before_attention: nn.Parameter
    before_mlp: nn.Parameter
    eps: float
    qkv: LinearGroup
    out: LinearGroup
    gate_up: LinearGroup
    down: LinearGroup
    heads: int
    key_heads: int
    head_size: int
    scale: float
    window: int | None

    @property
    def groups(self) -> tuple[LinearGroup, ...]:
        """All products, in the order in which they are made."""
        return self.qkv, self.out, self.gate_up, self.down

    @property
    def learnables(self) -> list[nn.Parameter]:
        """What learns in it, in the order in which `BlockNode` gives gradients."""
        norms = [norm for norm in (self.before_attention, self.before_mlp) if norm.requires_grad]
        return [*norms, *(each for group in self.groups for each in group.learnables)]

    @property
    def adapted(self) -> bool | None:
        """Whether its adapters are on; None where this node cannot run it now."""
        states = {group.adapted for group in self.groups if group.adapters}
        if len(states) > 1 or not all(group.in_place for group in self.groups):
            return None
        return states.pop() if states else False

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, segments: Segments, *, adapted: bool = True) -> Tensor:
        """x [T,H], cos and sin [T,D/2] -> [T,H]."""
        return BlockNode.apply(x, cos, sin, self, segments, adapted, *self.learnables)  # type: ignore[no-any-return]

    def heads_of(self, rows: Tensor) -> Tensor:
        """[T, n D or more] -> [T,n,D], a view."""
        return rows[:, : self.heads * self.head_size].unflatten(1, (self.heads, self.head_size))

    def split(self, qkv: Tensor) -> list[Tensor]:
        """[T, (n + 2k) D] -> q [T,n,D], k and v [T,k,D]."""
        heads = qkv.view(len(qkv), -1, self.head_size)
        return list(heads.split([self.heads, self.key_heads, self.key_heads], 1))


class BlockNode(torch.autograd.Function):
    """See `GatedBlock`."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx, x: Tensor, cos: Tensor, sin: Tensor, block: GatedBlock, segments: Segments, adapted: bool, *learnables
    ) -> Tensor:
        """[T,H]"""
        T, turned = len(x), block.heads + block.key_heads
        read = block.qkv.empty_input(T)
        inverse = rms_norm(x, block.before_attention, block.eps, read[:, : block.qkv.inputs])
        qkv = block.qkv.forward(read, adapted=adapted)
        rotate(qkv, cos, sin, qkv, turned)
        seen = block.out.empty_input(T)
        kept = attend(block.split(qkv), block.heads_of(seen), segments, block.scale, block.window)
        middle = block.out.forward(seen, plus=x, adapted=adapted)
        thought = block.gate_up.empty_input(T)
        inverse_2 = rms_norm(middle, block.before_mlp, block.eps, thought[:, : block.gate_up.inputs])
        both = block.gate_up.forward(thought, adapted=adapted)
        inner = block.down.empty_input(T)
        gated(both, inner[:, : block.down.inputs])
        y = block.down.forward(inner, plus=middle, adapted=adapted)
        ctx.save_for_backward(x, cos, sin, read, inverse, qkv, seen, middle, thought, inverse_2, both, inner, *kept)
        ctx.block, ctx.segments, ctx.adapted = block, segments, adapted
        return y

    @staticmethod
    def backward(ctx, d_y: Tensor):  # type: ignore[override]
        """d x, and the gradients of what learns."""
        block, adapted = ctx.block, ctx.adapted
        x, cos, sin, read, inverse, qkv, seen, middle, thought, inverse_2, both, inner, *kept = ctx.saved_tensors
        d_y = d_y.contiguous()
        d_inner, d_low, of_down = block.down.backward(d_y, inner, adapted=adapted, whole=False)
        d_both = gated_backward(d_inner, both, d_low, block.down.a, block.down.scale if adapted else 0.0)
        d_thought, _, of_gate_up = block.gate_up.backward(d_both, thought, adapted=adapted)
        d_middle, of_norm_2 = rms_norm_backward(
            d_thought, middle, block.before_mlp, inverse_2, d_y, learns=block.before_mlp.requires_grad
        )
        d_seen, _, of_out = block.out.backward(d_middle, seen, adapted=adapted)
        d_qkv = torch.empty_like(qkv)
        attend_backward(
            block.heads_of(d_seen), block.split(qkv), block.heads_of(seen), kept, block.split(d_qkv), ctx.segments,
            block.scale, block.window,
        )  # fmt: skip
        rotate(d_qkv, cos, sin, d_qkv, block.heads + block.key_heads, back=True)
        d_read, _, of_qkv = block.qkv.backward(d_qkv, read, adapted=adapted)
        d_x, of_norm = rms_norm_backward(
            d_read, x, block.before_attention, inverse, d_middle, learns=block.before_attention.requires_grad
        )
        of_norms = [one for one in (of_norm, of_norm_2) if one is not None]
        return d_x, None, None, None, None, None, *of_norms, *of_qkv, *of_out, *of_gate_up, *of_down
