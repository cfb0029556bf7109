"""What `accelerate launch` leaves in the environment of its processes, put back into the shape of its file."""

from collections.abc import Mapping, MutableMapping
from typing import Any

MEANT = (
    "ACCELERATE_USE_", "ACCELERATE_DEEPSPEED_", "ACCELERATE_GRADIENT_", "ACCELERATE_CONFIG_DS_FIELDS",
    "ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_",
)  # fmt: skip
"""how those names begin that say how to train; where and with whom is said by others, which stay"""
DEEPSPEED = {
    "zero_stage": "ACCELERATE_DEEPSPEED_ZERO_STAGE",
    "offload_optimizer_device": "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE",
    "offload_param_device": "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE",
    "gradient_accumulation_steps": "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "gradient_clipping": "ACCELERATE_GRADIENT_CLIPPING",
}
FILE = "ACCELERATE_DEEPSPEED_CONFIG_FILE"


def take_out(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Remove what `accelerate launch` said about training, and return it.

    Whatever opens Accelerate's own state would ask for the package deepspeed under ACCELERATE_USE_DEEPSPEED and divide
    losses by ACCELERATE_GRADIENT_ACCUMULATION_STEPS; transformers loads empty weights under ACCELERATE_USE_FSDP. The
    engine opens a plain process group and does all of it itself, by the recipe.
    """
    return {name: environ.pop(name) for name in sorted(environ) if name.startswith(MEANT)}


def as_file(said: Mapping[str, str]) -> dict[str, Any] | None:
    """The tree of an `accelerate config` that says the same, or None where no launcher said anything."""
    tree: dict[str, Any] = {}
    if "ACCELERATE_MIXED_PRECISION" in said:
        tree["mixed_precision"] = said["ACCELERATE_MIXED_PRECISION"]
    if is_on(said, "ACCELERATE_USE_CPU"):
        tree["use_cpu"] = True
    if "ACCELERATE_DYNAMO_BACKEND" in said:
        tree["dynamo_config"] = {"dynamo_backend": said["ACCELERATE_DYNAMO_BACKEND"]}
    if is_on(said, "ACCELERATE_USE_PARALLELISM_CONFIG"):
        tree["parallelism_config"] = under(said, "PARALLELISM_CONFIG_", "parallelism_config_")
    if is_on(said, "ACCELERATE_USE_MEGATRON_LM"):
        tree["megatron_lm_config"] = under(said, "MEGATRON_LM_", "megatron_lm_") or {"on": True}
    if is_on(said, "ACCELERATE_USE_DEEPSPEED"):
        tree["distributed_type"] = "DEEPSPEED"
        found = {key: value_of(said[name]) for key, name in DEEPSPEED.items() if name in said}
        # with a file, the launcher leaves its own defaults beside it
        tree["deepspeed_config"] = {"deepspeed_config_file": said[FILE]} if FILE in said else found
    elif is_on(said, "ACCELERATE_USE_FSDP"):
        tree["distributed_type"] = "FSDP"
        tree["fsdp_config"] = under(said, "FSDP_", "fsdp_")
    return tree or None


def is_on(said: Mapping[str, str], name: str) -> bool:
    """Whether a switch of the environment is on."""
    return said.get(name, "").lower() in ("true", "1", "yes")


def under(said: Mapping[str, str], prefix: str, key: str) -> dict[str, Any]:
    """The names with a prefix, as keys of a file."""
    return {
        key + name.removeprefix(prefix).lower(): value_of(value)
        for name, value in said.items()
        if name.startswith(prefix)
    }


def value_of(text: str) -> Any:
    """What a file would hold where the environment has only text."""
    words = {"true": True, "false": False, "none": None, "": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text
