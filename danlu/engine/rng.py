"""The state of every random number generator of this process, as JSON and back."""

import random
from typing import Any

import numpy as np
import torch


def rng_state() -> dict[str, Any]:
    """Python's, NumPy's and torch's generators, and this process's accelerator's where there is one."""
    version, words, gauss = random.getstate()
    state = {
        "python": [version, list(words), gauss],
        "numpy": _numpy_state(),
        "torch": _to_hex(torch.get_rng_state()),
    }
    if torch.accelerator.is_available():
        state["accelerator"] = _to_hex(torch.get_device_module().get_rng_state())
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Put every generator back to where `rng_state` found it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(_numpy_from(state["numpy"]))
    torch.set_rng_state(_from_hex(state["torch"]))
    if "accelerator" in state and torch.accelerator.is_available():
        torch.get_device_module().set_rng_state(_from_hex(state["accelerator"]))


def _numpy_state() -> dict[str, Any]:
    state = np.random.get_state(legacy=False)
    assert isinstance(state, dict)
    return state | {"state": {"key": state["state"]["key"].tolist(), "pos": int(state["state"]["pos"])}}


def _numpy_from(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"state": {"key": np.array(state["state"]["key"], np.uint32), "pos": state["state"]["pos"]}}


def _to_hex(state: torch.Tensor) -> str:
    return state.numpy().tobytes().hex()


def _from_hex(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
