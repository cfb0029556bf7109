"""What this machine computes with, and in which precision it does so best."""

from typing import Literal

import torch

from danlu.core.errors import SetupError
from danlu.core.gpus import gpu_called

Precision = Literal["auto", "bf16", "fp16", "fp32"]


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix products; `auto` is bf16 where the hardware multiplies it, else fp32."""
    if precision == "auto":
        return torch.bfloat16 if multiplies_bf16(device) else torch.float32
    if precision == "fp16" and device.type == "cpu":
        raise SetupError("engine.precision: fp16 needs a GPU; on this processor say bf16 or fp32")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise SetupError(f"engine.precision: {torch.cuda.get_device_name(device)} has no bf16; say fp16 or fp32")
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]


def multiplies_bf16(device: torch.device) -> bool:
    """Whether bf16 products are done in hardware: most GPUs since 2020, processors with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capable = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return capable and torch.ops.mkldnn._is_mkldnn_bf16_supported() and _has_bf16_units()


def _has_bf16_units() -> bool:
    try:
        with open("/proc/cpuinfo") as info:
            flags = next((line for line in info if line.startswith("flags")), "")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def device_name(device: torch.device) -> str:
    """What the maker calls it; for a processor, what torch can use of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def peak_flops(device: torch.device) -> float | None:
    """What the maker promises for bf16 products, or None where it is not known."""
    if device.type != "cuda":
        return None
    known = gpu_called(torch.cuda.get_device_name(device))
    return known and known.bf16_flops
