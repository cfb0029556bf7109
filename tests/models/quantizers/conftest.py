"""A linear layer with the weights of a trained model's size, and each way to store it."""

import pytest
import torch
from torch import nn

from danlu.models.quantizers.base import Quantizer, quantizers

WAYS = {
    "nf4": lambda: quantizers["nf4"](),
    "nf4-plain-scales": lambda: quantizers["nf4"](double_quant=False),
    "int8": lambda: quantizers["int8"](),
    "fp8": lambda: quantizers["fp8"](),
}


@pytest.fixture(params=WAYS)
def quantizer(request) -> Quantizer:
    """Each quantizer in turn."""
    return WAYS[request.param]()


@pytest.fixture(params=[(96, 64), (64, 96), (10, 50)], ids=str)
def linear(request) -> nn.Linear:
    """[O,I] in fp32; blocks of 64 cross the rows of the second, the third has no whole number of them."""
    torch.manual_seed(3)
    outputs, inputs = request.param
    layer = nn.Linear(inputs, outputs).requires_grad_(False)
    nn.init.normal_(layer.weight, std=0.02)
    return layer
