"""How fast a plan goes: products at the rate that is attained, and all else at the speed of memory."""

import torch
from torch import nn

from danlu.core.gpus import GPU
from danlu.engine.planner.plan import Plan
from danlu.models.blocks import blocks_of
from danlu.models.flops import flops_per_token
from danlu.models.outline import Outline

ATTAINED = 0.75
"""share of the promised bf16 rate that large products attain: 709 to 790 of 989 TFLOP/s on an H100"""
FP32_SHARE = 1 / 12
"""of the bf16 rate, without tensor cores"""
ACTIVATION_PASSES = 3
"""how often what a forward keeps goes through memory: written, read, and its gradient written"""
UPDATE_PASSES = 2
"""how often an update reads or writes what it holds"""


def tokens_per_second(policy: Outline, plan: Plan, gpu: GPU, dtype: torch.dtype, *, step_tokens: int) -> float:
    """Of one GPU whose steps have so many tokens. Attention's products and what waits for the host are left out."""
    _, blocks = blocks_of(policy.inner)
    recomputed = plan.choice.recomputed / plan.num_blocks
    flops = flops_per_token(policy) + recomputed * 2 * weights_in(blocks)
    products = flops / (gpu.bf16_flops * ATTAINED * (FP32_SHARE if dtype == torch.float32 else 1))
    moved = ACTIVATION_PASSES * plan.all_kept / plan.choice.pack_tokens / gpu.bandwidth
    held = plan.holdings
    updated = UPDATE_PASSES * (held.masters + held.optimizer + held.gradients + held.learning) / gpu.bandwidth
    return 1 / (products + moved + updated / step_tokens)


def weights_in(blocks: nn.ModuleList) -> int:
    """How many weights the blocks multiply with."""
    return sum(parameter.numel() for parameter in blocks.parameters())
