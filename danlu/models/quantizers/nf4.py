"""Four bits for each frozen weight, in NormalFloat4: https://arxiv.org/abs/2305.14314"""

from functools import cache

import torch
from bitsandbytes.functional import create_dynamic_map, get_4bit_type
from torch import Tensor, nn

from danlu.models.kernels.nf4 import BLOCK, OUTER_BLOCK, fits_kernel, nf4_dense
from danlu.models.quantized_linear import QuantizedLinear
from danlu.models.quantizers.base import Quantizer


@cache
def levels_on(device: torch.device) -> Tensor:
    """fp32 [16]: the numbers that four bits stand for."""
    return get_4bit_type("nf4", device=device)


class NF4(Quantizer):
    """Four bits for each frozen weight: a quarter of bf16, errors of about 10 %, which the adapter makes up for."""

    double_quant: bool = True
    """quantize the scales too: 4.13 bits a weight instead of 4.5"""

    def layer(self, linear: nn.Linear) -> QuantizedLinear:
        return NF4Linear(linear, self.double_quant)


class NF4Linear(QuantizedLinear):
    """weight uint8: two codes a byte, in bitsandbytes' order."""

    absmax: Tensor
    """the scale of each block: fp32, or with `double_quant` uint8 codes"""
    code: Tensor
    """fp32 [256]: what those codes stand for"""
    outer: Tensor
    """fp32: what they are multiplied by, in blocks of 256"""
    mean: Tensor
    """fp32 scalar: what is added to all"""

    def __init__(self, layer: nn.Linear, double_quant: bool) -> None:
        self.double_quant = double_quant
        super().__init__(layer)

    def pack(self, weight: Tensor) -> dict[str, Tensor]:
        quantize = torch.ops.bitsandbytes.quantize_4bit
        weight, absmax = quantize(weight.contiguous(), BLOCK, "nf4", torch.uint8)
        if not self.double_quant:
            return {"weight": weight, "absmax": absmax}
        code = create_dynamic_map().to(absmax.device)
        mean = absmax.mean()
        codes, outer = torch.ops.bitsandbytes.quantize_blockwise(absmax - mean, code, OUTER_BLOCK)
        return {"weight": weight, "absmax": codes, "code": code, "outer": outer, "mean": mean}

    def dense_into(self, out: Tensor) -> None:
        if not fits_kernel(self.weight, out):
            return super().dense_into(out)
        known = (self.code, self.outer, self.mean) if self.double_quant else ()
        nf4_dense(self.weight, self.absmax, out, levels_on(self.weight.device), known)

    def dense(self) -> Tensor:
        number = self.out_features * self.in_features
        # bitsandbytes 0.50 on a processor is wrong by 20 % where blocks cross the rows that it is told of (I = 96)
        rows = (number // BLOCK, BLOCK) if number % BLOCK == 0 else (1, number)
        dequantize = torch.ops.bitsandbytes.dequantize_4bit
        flat = dequantize(self.weight, self.scales(), BLOCK, "nf4", rows, self.compute_dtype)
        return flat.view(self.out_features, self.in_features)

    def scales(self) -> Tensor:
        """fp32 scale of each block."""
        if not self.double_quant:
            return self.absmax
        dequantize = torch.ops.bitsandbytes.dequantize_blockwise
        return dequantize(self.absmax, self.outer, self.code, OUTER_BLOCK, torch.float32) + self.mean
