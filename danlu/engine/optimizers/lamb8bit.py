"""LAMB with states of 8 bits, in blocks of 256: https://arxiv.org/abs/2110.02861

bitsandbytes has a LAMB8bit, but its 8-bit update knows no norms: it is AdamW by another name.
"""

from functools import lru_cache
from typing import Any

import torch
from bitsandbytes.functional import create_dynamic_map
from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer

from danlu.engine.optimizers.base import Groups
from danlu.engine.optimizers.lamb import LAMB, TorchLAMB

BLOCK = 256
SMALLEST = 4096
"""elements from which a tensor's means are kept in 8 bits; norms and biases are not worth their errors"""


class LAMB8bit(LAMB):
    """LAMB that keeps its two means in 8 bits each, a quarter of their memory; small tensors keep 32."""

    @property
    def bytes_per_weight(self) -> float:
        return 2 * (1 + 4 / 256)  # a code, and a scale for 256 of them

    def build(self, groups: Groups) -> TorchOptimizer:
        return TorchLAMB8bit(groups, self.settings())


class TorchLAMB8bit(TorchLAMB):
    """LAMB; means are codes between two steps."""

    def means(self, state: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Decoded, fp32."""
        return decoded(state, "mean"), decoded(state, "square")

    def keep(self, state: dict[str, Any], mean: Tensor, square: Tensor) -> None:
        """Encoded, the square without a sign."""
        for name, value in (("mean", mean), ("square", square)):
            state[name] = value
            if value.numel() >= SMALLEST:
                code = dynamic_code(name == "mean", value.device)
                state[name], state[f"{name}_scale"] = torch.ops.bitsandbytes.quantize_blockwise(value, code, BLOCK)


def decoded(state: dict[str, Any], name: str) -> Tensor:
    """A mean as it was kept, fp32."""
    value = state[name]
    if value.dtype != torch.uint8:
        return value
    code = dynamic_code(name == "mean", value.device)
    return torch.ops.bitsandbytes.dequantize_blockwise(value, state[f"{name}_scale"], code, BLOCK, torch.float32)


@lru_cache
def dynamic_code(signed: bool, device: torch.device) -> Tensor:
    """[256] what the codes stand for, in -1 to 1 or 0 to 1."""
    return create_dynamic_map(signed=signed).to(device)
