"""Any torch optimiser's state as named tensors and JSON, and back without losing a bit.

Values are written as they are, at their own dtype; torch's own `load_state_dict` would cast a bf16 weight's fp32
moments to bf16. Parameters are known by name, so neither their order nor the order of groups matters.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from danlu.core.errors import CheckpointError

HOW = ("fused", "foreach", "capturable")
"""options that say by which code an update is made: those of the optimiser at hand stay"""
Names = Mapping[nn.Parameter, str]


def optimizer_state(optimizer: Optimizer, names: Names) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by name, and everything else as JSON that says where each tensor belongs."""
    encoder = Encoder()
    groups, state = [], {}
    for number, group in enumerate(optimizer.param_groups):
        options = {key: encoder.encode(value, f"group.{number}.{key}") for key, value in _options(group)}
        groups.append({"parameters": [names[parameter] for parameter in group["params"]], "options": options})
        for parameter in group["params"]:
            if parameter in optimizer.state:
                name = names[parameter]
                values = optimizer.state[parameter].items()
                state[name] = {key: encoder.encode(value, f"{name}.{key}") for key, value in values}
    return encoder.tensors, {"groups": groups, "state": state}


def restore_optimizer(
    optimizer: Optimizer, names: Names, tensors: Mapping[str, Tensor], saved: Mapping[str, Any]
) -> None:
    """Put an optimiser over the same parameters into the saved state."""
    by_members = {frozenset(group["parameters"]): group["options"] for group in saved["groups"]}
    decoder = Decoder(tensors)
    for group in optimizer.param_groups:
        members = frozenset(names[parameter] for parameter in group["params"])
        if members not in by_members:
            raise CheckpointError(_other_groups(members, by_members))
        saved_options = {key: value for key, value in by_members[members].items() if key not in HOW}
        group.update({key: decoder.decode(value) for key, value in saved_options.items()})
    optimizer.state.clear()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            values = saved["state"].get(names[parameter])
            if values is not None:
                placed = {key: decoder.decode(value, _device(key, parameter, group)) for key, value in values.items()}
                optimizer.state[parameter] = placed


def _options(group: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in group.items() if key not in ("params", "param_names"))


class Encoder:
    """Turns values into JSON; each tensor in them goes to `tensors` and leaves its name."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[object, ...], str] = {}

    def encode(self, value: Any, name: str) -> Any:
        """JSON for a value that is called `name`."""
        if type(value) in (Tensor, nn.Parameter):
            return {"tensor": self._keep(value.detach(), name)}
        if isinstance(value, (list, tuple)):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [self.encode(one, f"{name}.{number}") for number, one in enumerate(value)]}
        if isinstance(value, dict):
            return {"dict": [[key, self.encode(one, f"{name}.{key}")] for key, one in value.items()]}
        if value is None or type(value) in (bool, int, float, str):
            return value
        raise CheckpointError(f"{name}: a checkpoint holds tensors and plain values, not {type(value).__name__}")

    def _keep(self, value: Tensor, name: str) -> str:
        # 8-bit optimisers share one table of codes among all parameters; safetensors refuses to write it twice
        place = (value.data_ptr(), value.dtype, value.shape, value.stride())
        first = self._names.setdefault(place, name)
        self.tensors[first] = value
        return first


class Decoder:
    """Turns JSON back into values. What was one tensor for several parameters is one again."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._made: dict[tuple[str, str], Tensor] = {}

    def decode(self, value: Any, device: torch.device | str = "cpu") -> Any:
        """The value, its tensors on a device."""
        if not isinstance(value, dict):
            return value
        kind, content = next(iter(value.items()))
        if kind == "tensor":
            place = (content, str(device))
            if place not in self._made:  # copied: an in-place update must not write to the file's buffer
                self._made[place] = self._tensors[content].to(device, copy=True)
            return self._made[place]
        if kind == "dict":
            return {key: self.decode(one, device) for key, one in content}
        return (list if kind == "list" else tuple)(self.decode(one, device) for one in content)


def _device(key: str, parameter: nn.Parameter, group: Mapping[str, Any]) -> torch.device | str:
    """The parameter's; a step count belongs there only when the kernel reads it."""
    on_device = key != "step" or group.get("fused") or group.get("capturable")
    return parameter.device if on_device else "cpu"


def _other_groups(members: frozenset[str], saved: Mapping[frozenset[str], Any]) -> str:
    known = frozenset[str]().union(*saved)
    missing, left = sorted(members - known), sorted(known - members)
    found = f"it lacks {missing}" if missing else f"it has {left} too" if left else "its groups are others"
    return f"the checkpoint's optimiser was over other parameters: {found:.400}"
