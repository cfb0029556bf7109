"""A decoder block as one autograd node: norm, attention, norm, gated MLP, both with a residual, as Llama has them.

Every step writes where the next one reads, and what is saved is what the way back reads: nothing is copied or added on
the side. Shapes: T tokens, H hidden, n query heads, k key heads of size D.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from danlu.models.kernels.gated import gated, gated_backward
from danlu.models.kernels.gpu import wide
from danlu.models.kernels.head_norm import head_norm, head_norm_backward
from danlu.models.kernels.linear_group import LinearGroup
from danlu.models.kernels.rms_norm import rms_norm, rms_norm_backward
from danlu.models.kernels.rotary import rotate
from danlu.models.kernels.segment_attention import Segments
from danlu.models.kernels.varlen_attention import attend, attend_backward, room_for_gradients


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
    head_norms: tuple[nn.Parameter, nn.Parameter] | None = None
    """of queries and keys, [D] each"""
    mlp_tokens: int | None = None
    """how many go through the MLP at once, and are computed again on the way back; None for all, kept"""

    @property
    def groups(self) -> tuple[LinearGroup, ...]:
        """All products, in the order in which they are made."""
        return self.qkv, self.out, self.gate_up, self.down

    @property
    def learnables(self) -> list[nn.Parameter]:
        """What learns in it, in the order in which `BlockNode` gives gradients."""
        norms = (self.before_attention, self.before_mlp, *(self.head_norms or ()))
        return [
            *(norm for norm in norms if norm.requires_grad),
            *(each for group in self.groups for each in group.learnables),
        ]

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

    def turned(self, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor | None]:
        """[T,(n+2k)D], queries and keys normed, if their heads are, and turned to their positions; 1 / rms of those.

        In place, if nothing is normed: the way back of a norm needs what it was given.
        """
        if self.head_norms is None:
            rotate(qkv, cos, sin, qkv, self.heads + self.key_heads)
            return qkv, None
        turned = torch.empty_like(qkv)
        inverse = head_norm(qkv, *self.head_norms, self.eps, turned, (self.heads, self.key_heads))
        rotate(turned, cos, sin, turned, self.heads + self.key_heads)
        return turned, inverse

    def turned_backward(
        self, d_qkv: Tensor, qkv: Tensor | None, inverse: Tensor | None, cos: Tensor, sin: Tensor
    ) -> list[Tensor | None]:
        """The gradient of what `turned` gave becomes that of what it was given; returns those of the norms."""
        rotate(d_qkv, cos, sin, d_qkv, self.heads + self.key_heads, back=True)
        if self.head_norms is None or qkv is None or inverse is None:
            return []
        learns = self.head_norms[0].requires_grad
        heads = self.heads, self.key_heads
        return list(head_norm_backward(d_qkv, qkv, *self.head_norms, inverse, heads, learns=learns))

    def mlp(self, x: Tensor, *, adapted: bool) -> tuple[Tensor, list[Tensor]]:
        """x [T,H] -> x + MLP(norm(x)) [T,H], and what the way back needs of it."""
        T = len(x)
        thought = self.gate_up.empty_input(T)
        inverse = rms_norm(x, self.before_mlp, self.eps, thought[:, : self.gate_up.inputs])
        both = self.gate_up.forward(thought, adapted=adapted)
        inner = self.down.empty_input(T)
        gated(both, inner[:, : self.down.inputs])
        y = self.down.forward(inner, plus=x, adapted=adapted)
        return y, [thought, inverse, both, inner[:, self.down.inputs :].clone()]  # the way back makes the rest again

    def mlp_backward(
        self, d_y: Tensor, x: Tensor, kept: list[Tensor], *, adapted: bool
    ) -> tuple[Tensor, list[Tensor | None]]:
        """d x [T,H], and the gradients of the norm and of what learns in both products."""
        thought, inverse, both, low = kept
        inner = self.down.empty_input(len(x))
        inner[:, self.down.inputs :] = low
        d_inner, d_low = self.down.input_gradient(d_y)
        scale = self.down.scale if adapted else 0.0
        d_both = gated_backward(d_inner, both, d_low, self.down.a, scale, inner[:, : self.down.inputs])
        of_down = self.down.gradients(d_y, inner, d_low, adapted=adapted)
        d_thought, _, of_gate_up = self.gate_up.backward(d_both, thought, adapted=adapted)
        learns = self.before_mlp.requires_grad
        d_x, of_norm = rms_norm_backward(d_thought, x, self.before_mlp, inverse, d_y, learns=learns)
        return d_x, [of_norm, *of_gate_up, *of_down]

    def mlp_by_pieces(self, x: Tensor, *, adapted: bool) -> Tensor:
        """`mlp`, so many tokens at a time, of which nothing is kept."""
        y = torch.empty_like(x)
        for rows in self.pieces(len(x)):
            y[rows], _ = self.mlp(x[rows], adapted=adapted)
        return y

    def mlp_backward_by_pieces(self, d_y: Tensor, x: Tensor, *, adapted: bool) -> tuple[Tensor, list[Tensor | None]]:
        """`mlp_backward` of pieces that are computed again; gradients of weights are summed in fp32."""
        d_x, sums, found = torch.empty_like(x), dict[int, Tensor](), list[Tensor | None]()
        for rows in self.pieces(len(x)):
            _, kept = self.mlp(x[rows], adapted=adapted)
            d_x[rows], found = self.mlp_backward(d_y[rows], x[rows], kept, adapted=adapted)
            for number, one in enumerate(found):
                if one is not None:
                    sums[number] = sums[number].add_(one) if number in sums else wide(one)
        return d_x, [sums[number].to(x.dtype) if number in sums else None for number in range(len(found))]

    def pieces(self, num_tokens: int) -> list[slice]:
        """The rows that go through the MLP together."""
        assert self.mlp_tokens
        return [slice(start, start + self.mlp_tokens) for start in range(0, num_tokens, self.mlp_tokens)]

    def attend(self, qkv: Tensor, seen: Tensor, segments: Segments) -> tuple[Tensor, ...]:
        """qkv [T,(n+2k)D] -> the first columns of seen, and what the way back needs beside both."""
        shared = segments.shared
        if shared is None:
            return attend(self.split(qkv), self.heads_of(seen), segments, self.scale, self.window)
        whole = qkv.new_empty(len(shared.places_T), self.heads * self.head_size)
        all_qkv = qkv.index_select(0, shared.places_T)
        kept = attend(self.split(all_qkv), self.heads_of(whole), segments, self.scale, self.window)
        seen[:, : whole.shape[1]] = whole.index_select(0, shared.firsts_U)
        return kept

    def attend_backward(
        self, d_seen: Tensor, qkv: Tensor, seen: Tensor, kept: Sequence[Tensor], segments: Segments
    ) -> Tensor:
        """The gradient of qkv for that of what was seen."""
        shared, width = segments.shared, self.heads * self.head_size
        if shared is not None:
            d_seen = qkv.new_zeros(len(shared.places_T), width).index_copy(0, shared.firsts_U, d_seen[:, :width])
            qkv, seen = (x.index_select(0, shared.places_T) for x in (qkv, seen[:, :width]))
        d_qkv = room_for_gradients(qkv)
        attend_backward(
            self.heads_of(d_seen), self.split(qkv), self.heads_of(seen), kept, self.split(d_qkv), segments, self.scale,
            self.window,
        )  # fmt: skip
        return d_qkv if shared is None else shared.sums(d_qkv)

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
        T = len(x)
        read = block.qkv.empty_input(T)
        inverse = rms_norm(x, block.before_attention, block.eps, read[:, : block.qkv.inputs])
        given = block.qkv.forward(read, adapted=adapted)
        qkv, inverses = block.turned(given, cos, sin)
        normed = (given, inverses) if inverses is not None else (None, None)
        seen = block.out.empty_input(T)
        kept = block.attend(qkv, seen, segments)
        middle = block.out.forward(seen, plus=x, adapted=adapted)
        if block.mlp_tokens and block.mlp_tokens < T:
            y, thoughts = block.mlp_by_pieces(middle, adapted=adapted), []
        else:
            y, thoughts = block.mlp(middle, adapted=adapted)
        ctx.save_for_backward(x, cos, sin, read, inverse, *normed, qkv, seen, middle, *thoughts, *kept)
        ctx.block, ctx.segments, ctx.adapted, ctx.num_thoughts = block, segments, adapted, len(thoughts)
        return y

    @staticmethod
    def backward(ctx, d_y: Tensor):  # type: ignore[override]
        """d x, and the gradients of what learns."""
        block, adapted = ctx.block, ctx.adapted
        x, cos, sin, read, inverse, given, inverses, qkv, seen, middle, *others = ctx.saved_tensors
        thoughts, kept = others[: ctx.num_thoughts], others[ctx.num_thoughts :]
        d_y = d_y.contiguous()
        if thoughts:
            d_middle, [of_norm_2, *of_mlp] = block.mlp_backward(d_y, middle, thoughts, adapted=adapted)
        else:
            d_middle, [of_norm_2, *of_mlp] = block.mlp_backward_by_pieces(d_y, middle, adapted=adapted)
        d_seen, _, of_out = block.out.backward(d_middle, seen, adapted=adapted)
        d_qkv = block.attend_backward(d_seen, qkv, seen, kept, ctx.segments)
        of_heads = block.turned_backward(d_qkv, given, inverses, cos, sin)
        d_read, _, of_qkv = block.qkv.backward(d_qkv, read, adapted=adapted)
        d_x, of_norm = rms_norm_backward(
            d_read, x, block.before_attention, inverse, d_middle, learns=block.before_attention.requires_grad
        )
        of_norms = [one for one in (of_norm, of_norm_2, *of_heads) if one is not None]
        return d_x, None, None, None, None, None, *of_norms, *of_qkv, *of_out, *of_mlp
