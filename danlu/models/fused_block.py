"""Find decoder blocks that one autograd node can run, and let it run them: found by structure, proven by trying."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import SiLUActivation

from danlu.models.blocks import blocks_of
from danlu.models.fused import is_plain
from danlu.models.kernels.gated_block import GatedBlock
from danlu.models.kernels.linear_group import LinearGroup, plain_of, scale_of
from danlu.models.kernels.segment_attention import Segments
from danlu.models.quantized_linear import QuantizedLinear

log = logging.getLogger(__name__)

CHILDREN = {"input_layernorm", "post_attention_layernorm", "self_attn", "mlp"}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
HEAD_NORMS = ("q_norm", "k_norm")
MLP = ("gate_proj", "up_proj", "down_proj")
"""what Llama's whole family calls the parts of a block; whether they do the same is found out by a trial"""
TRIAL = (19, 45)
"""lengths of two segments; the second is longer by the window that a model looks back"""
LONGEST_WINDOW = 8192
"""tokens: what cannot be tried is not used"""


class FusedForward:
    """A block's forward for packs, by one node; the block's own for everything else, such as generation."""

    def __init__(self, own: Callable[..., Tensor], fused: GatedBlock) -> None:
        self.own, self.fused = own, fused

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[1,T,H] -> [1,T,H], by the contract of transformers' blocks."""
        segments, positions = kwargs.get("segments"), kwargs.get("position_embeddings")
        if segments is None or positions is None or kwargs.get("past_key_values") is not None:
            return self.own(hidden_states, *args, **kwargs)
        adapted, half = self.fused.adapted, self.fused.head_size // 2
        if adapted is None or hidden_states.dtype != self.fused.qkv.dtype:
            return self.own(hidden_states, *args, **kwargs)
        cos, sin = (angles[0, :, :half] for angles in positions)
        return self.fused(hidden_states[0], cos, sin, segments, adapted=adapted)[None]


def fuse_blocks(model: PreTrainedModel, mlp_tokens: int | None = None) -> int:
    """Let one node run each block of a model, if it gives what the block gives; returns how many.

    MLPs take so many tokens at a time, or all.
    """
    _, blocks = blocks_of(model)
    rotary = getattr(model.base_model, "rotary_emb", None)
    window = getattr(model.config, "sliding_window", None) or 0
    if rotary is None or window > LONGEST_WINDOW or not all(is_gated_block(block) for block in blocks):
        log.info("%s: its blocks run operation by operation", type(model).__name__)
        return 0
    fused = [FusedForward(block.forward, parts_of(block, mlp_tokens)) for block in blocks]
    for block, forward in zip(blocks, fused, strict=True):
        if not gives_the_same(block, forward, rotary, window):
            log.warning("%s: one node for a whole block gives other numbers; not used", type(model).__name__)
            return 0
    for block, forward in zip(blocks, fused, strict=True):
        block.forward = forward
    return len(blocks)


def is_gated_block(block: nn.Module) -> bool:
    """Whether a block has the parts of Llama's and no others, learning by plain LoRA or all of a product at once."""
    children = dict(block.named_children())
    if children.keys() != CHILDREN:
        return False
    attention, mlp = (dict(children[name].named_children()) for name in ("self_attn", "mlp"))
    norms = [children["input_layernorm"], children["post_attention_layernorm"]]
    if attention.keys() - set(HEAD_NORMS) != set(ATTENTION) or mlp.keys() != {*MLP, "act_fn"}:
        return False
    of_heads = [attention[name] for name in HEAD_NORMS if name in attention]
    size = getattr(children["self_attn"], "head_dim", 0)
    if size.bit_count() != 1 or (of_heads and not are_head_norms(of_heads, norms[0], size)):
        return False  # kernels take a power of two
    layers = [*(attention[name] for name in ATTENTION), *(mlp[name] for name in MLP)]
    together = [[attention[name] for name in ATTENTION[:3]], [mlp[name] for name in MLP[:2]]]
    scales = {scale_of(layer) for layer in layers if isinstance(layer, PeftLinear)}
    return (
        len(scales) < 2
        and isinstance(mlp["act_fn"], nn.SiLU | SiLUActivation)
        and all(hasattr(norm, "variance_epsilon") for norm in norms)
        and all(is_fusable(layer) for layer in layers)
        and all(len({plain_of(layer).weight.requires_grad for layer in group}) == 1 for group in together)
        and not getattr(children["self_attn"], "attention_dropout", 0.0)
    )


def are_head_norms(norms: list[nn.Module], like: nn.Module, size: int) -> bool:
    """Whether there are two, of whole heads, that learn together and are made as the block's own norm."""
    weights = [norm.weight for norm in norms]
    return (
        len(norms) == len(HEAD_NORMS)
        and all(type(norm) is type(like) and norm.weight.shape == (size,) for norm in norms)
        and all(getattr(norm, "variance_epsilon", None) == getattr(like, "variance_epsilon", 0.0) for norm in norms)
        and len({weight.requires_grad for weight in weights}) == 1
    )


def is_fusable(layer: nn.Module) -> bool:
    """Whether a linear learns whole, or not at all but for the two matrices of a plain adapter."""
    if isinstance(layer, PeftLinear):
        return is_plain(layer) and not layer.get_base_layer().weight.requires_grad
    plain = type(layer) is nn.Linear or isinstance(layer, QuantizedLinear)
    return plain and len({parameter.requires_grad for parameter in layer.parameters()}) == 1


def parts_of(block: nn.Module, mlp_tokens: int | None) -> GatedBlock:
    """A block's weights laid together."""
    attention: Any = block.self_attn
    mlp: Any = block.mlp
    before, after = block.input_layernorm, block.post_attention_layernorm
    size = attention.head_dim
    return GatedBlock(
        before_attention=before.weight,  # type: ignore[arg-type]
        before_mlp=after.weight,  # type: ignore[arg-type]
        eps=before.variance_epsilon,  # type: ignore[arg-type]
        qkv=LinearGroup([attention.q_proj, attention.k_proj, attention.v_proj]),
        out=LinearGroup([attention.o_proj]),
        gate_up=LinearGroup([mlp.gate_proj, mlp.up_proj]),
        down=LinearGroup([mlp.down_proj]),
        heads=attention.q_proj.out_features // size,
        key_heads=attention.k_proj.out_features // size,
        head_size=size,
        scale=attention.scaling,
        window=window_of(attention),
        head_norms=(attention.q_norm.weight, attention.k_norm.weight) if hasattr(attention, "q_norm") else None,
        mlp_tokens=mlp_tokens,
    )


def window_of(attention: Any) -> int | None:
    """How far back a layer looks: some keep that themselves, such as Qwen2's, Mistral's ask their configuration."""
    own = attention if hasattr(attention, "sliding_window") else attention.config
    return getattr(own, "sliding_window", None)


def gives_the_same(block: nn.Module, fused: FusedForward, rotary: nn.Module, window: int) -> bool:
    """Whether node and block agree on two short segments: what they give, and all gradients."""
    if fused.fused.mlp_tokens:  # so few that the trial has several pieces
        fused = FusedForward(fused.own, replace(fused.fused, mlp_tokens=TRIAL[0]))
    group = fused.fused.qkv
    device, lengths = group.device, (TRIAL[0], TRIAL[1] + window)
    tokens = sum(lengths)
    positions = torch.cat([torch.arange(n) for n in lengths]).to(device)[None]
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(1, tokens, group.inputs, generator=numbers).to(device, group.dtype)
    if x.is_meta:
        return True  # without data there is nothing to compare; a run on the device will
    d_y = torch.randn(1, tokens, group.inputs, generator=numbers).to(device, group.dtype)
    given = {"position_embeddings": rotary(x, positions), "segments": Segments(lengths, device)}
    learnables = [each for each in fused.fused.learnables if each.requires_grad]
    results = []
    for forward in (fused.own, fused):
        leaf = x.clone().requires_grad_()
        y = forward(leaf, attention_mask=None, position_ids=positions, **given)
        results.append((y, *torch.autograd.grad(y, [leaf, *learnables], d_y)))
    bound = 1e-3 if group.dtype in (torch.float32, torch.float64) else 0.03
    if group.float8 is not None:
        bound = 0.1  # what is multiplied is rounded too, not only the weight
    expected, found = results
    bounds = [bound, bound, *(2 * bound for _ in found[2:])]  # weights' gradients sum over few tokens: they are rougher
    return all(near(*each) for each in zip(found, expected, bounds, strict=True))


def near(found: Tensor, expected: Tensor, bound: float) -> bool:
    """Whether the difference is small beside the length of what is expected."""
    return bool((found - expected).float().norm() <= bound * expected.float().norm())
