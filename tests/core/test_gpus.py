"""The table of GPUs, by the names that people and torch use."""

import pytest

from danlu.core.errors import UserError
from danlu.core.gpus import gpu, gpu_called, gpus

CALLED = {
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA A100-SXM4-40GB": "a100-40",
    "NVIDIA A100-PCIE-40GB": "a100-40",
    "NVIDIA A100-SXM4-80GB": "a100-80",
    "NVIDIA A100 80GB PCIe": "a100-80",
    "NVIDIA A10": "a10",
    "NVIDIA L4": "l4",
    "NVIDIA L40S": "l40s",
    "NVIDIA GeForce RTX 4090": "4090",
    "NVIDIA RTX A6000": "a6000",
    "Tesla T4": "t4",
    "Tesla V100-SXM2-32GB": "v100-32",
    "Tesla V100-SXM2-16GB": "v100",
}


@pytest.mark.parametrize(("called", "name"), CALLED.items())
def test_what_torch_calls_a_gpu_is_found(called, name):
    found = gpu_called(called)
    assert found is not None
    assert found.name == name


def test_an_unknown_gpu_is_none():
    assert gpu_called("AMD Instinct MI300X") is None


def test_names_as_people_write_them():
    assert gpu("H100").name == "h100"
    assert gpu("a100").name == "a100-80"
    assert gpu("rtx-4090").name == "4090"


def test_a_misspelt_name_is_met_with_the_nearest():
    with pytest.raises(UserError, match=r"did you mean 'h100'"):
        gpu("h1000")


def test_every_row_is_of_a_gpu():
    for each in gpus().values():
        assert 14 < each.memory_bytes / 2**30 < 300
        assert 5e13 < each.bf16_flops < 5e15
        assert 2e11 < each.bandwidth < 1e13
