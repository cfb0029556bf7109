"""A byte for each frozen weight: 8-bit floats, and a scale for each row: https://arxiv.org/abs/2209.05433"""

import torch
from torch import Tensor, nn

from danlu.models.quantized_linear import QuantizedLinear
from danlu.models.quantizers.base import Quantizer
from danlu.models.quantizers.int8 import row_scale

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
EVERY = torch.arange(256, dtype=torch.uint8).view(FLOAT8).float()
"""[256] fp32: what each byte stands for"""


class FP8(Quantizer):
    """An 8-bit float for each frozen weight: half of bf16, errors of about 2 %; new GPUs multiply them as they are."""

    def layer(self, linear: nn.Linear) -> QuantizedLinear:
        return FP8Linear(linear)


class FP8Linear(QuantizedLinear):
    """weight [O,I] uint8: the bytes of float8_e4m3fn."""

    scale: Tensor
    """fp32 [O,1]"""

    @property
    def float8(self) -> Tensor:
        """[O,I] float8_e4m3fn, the same memory as `weight`: what a scaled product takes."""
        return self.weight.view(FLOAT8)

    def pack(self, weight: Tensor) -> dict[str, Tensor]:
        scale = row_scale(weight, LARGEST)
        scaled = (weight.float() / scale).clamp_(-LARGEST, LARGEST)  # past its largest number, float8 is NaN
        return {"weight": scaled.to(FLOAT8).view(torch.uint8), "scale": scale}

    def dense(self) -> Tensor:
        if self.weight.is_cuda:
            return self.float8.to(self.compute_dtype).mul_(self.scale)
        # a processor looks the numbers up four times faster than it converts them
        numbers = EVERY.to(self.weight.device).index_select(0, self.weight.view(-1).int())
        return numbers.view_as(self.weight).mul_(self.scale).to(self.compute_dtype)
