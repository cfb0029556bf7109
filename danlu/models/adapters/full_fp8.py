"""Every weight learns, and the products of the blocks are done in 8-bit floats: https://arxiv.org/abs/2209.05433"""

from dataclasses import replace
from typing import Literal

import torch
from torch import nn
from torchao.float8 import Float8LinearConfig, convert_to_float8_training
from transformers import PreTrainedModel

from danlu.core.errors import SetupError
from danlu.models.adapters.full import Full
from danlu.models.blocks import blocks_of

MULTIPLE = 16
"""sizes that scaled products take"""


class FullFP8(Full):
    """Every weight learns; products of the blocks' linear layers are in fp8, both ways, weights stay as they are."""

    scaling: Literal["tensorwise", "rowwise"] = "tensorwise"
    """what shares a scale: a whole matrix, which is fastest, or each row, which is nearer to bf16"""

    def check(self, device: torch.device) -> None:
        """Scaled products are for GPUs from Ada and Hopper on."""
        if device.type != "cuda":
            raise SetupError(f"adapter: full_fp8 multiplies in fp8 on a GPU, and this run is on {device.type}")
        if torch.cuda.get_device_capability(device) < (8, 9):
            name = torch.cuda.get_device_name(device)
            raise SetupError(f"adapter: full_fp8 needs a GPU that multiplies fp8 (Ada, Hopper or newer), not {name}")

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Mark every weight, and put scaled products into the blocks."""
        learning = super().apply(model)
        for block in blocks_of(model)[1]:
            convert_to_float8_training(block, module_filter_fn=fits, config=self.config())
        return learning

    def config(self) -> Float8LinearConfig:
        """The same in torchao's words."""
        return replace(Float8LinearConfig.from_recipe_name(self.scaling), pad_inner_dim=True)  # packs of any length


def fits(layer: nn.Module, name: str) -> bool:
    """Whether a layer's sizes can be scaled products."""
    return isinstance(layer, nn.Linear) and layer.in_features % MULTIPLE == layer.out_features % MULTIPLE == 0
