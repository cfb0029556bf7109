"""`accelerate config`'s YAML as a recipe's settings: https://huggingface.co/docs/accelerate/basic_tutorials/launch"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from danlu.dialects.deepspeed import DEVICES, PARAMS, STAGES, STATES, deal_out, deepspeed
from danlu.dialects.reading import Block, Reading

TABLE = Path(__file__).with_name("accelerate.yaml")

PLAIN = ["NO", "MULTI_GPU", "MULTI_CPU"]
KINDS = [*PLAIN, "DEEPSPEED", "FSDP"]
"""of `distributed_type`; the others are for machines or cuts that are not had"""
STRATEGIES = {
    "FULL_SHARD": "fsdp", "SHARD_GRAD_OP": "zero2", "NO_SHARD": "ddp", "HYBRID_SHARD": "fsdp",
    "HYBRID_SHARD_ZERO2": "zero2", "1": "fsdp", "2": "zero2", "3": "ddp", "4": "fsdp", "5": "zero2",
}  # fmt: skip
"""engine.parallel of each sharding strategy: weights kept whole after the forward pass are what ZeRO-2 keeps"""
RESHARD = {"true": "fsdp", "false": "zero2"}
"""the same in the second version's words"""
BLOCKS = ["deepspeed_config", "fsdp_config", "megatron_lm_config", "parallelism_config"]
TAKEN = [
    "distributed_type", "mixed_precision", "fp16", "use_cpu", "num_processes", "dynamo_config", "dynamo_backend",
    *BLOCKS,
]  # fmt: skip


def accelerate(
    tree: dict[str, Any], ranks: int, origin: str = "Accelerate's file", engine: dict[str, Any] | None = None
) -> Reading:
    """The settings that an Accelerate YAML means for a run of `ranks` processes.

    `engine` is the DeepSpeed JSON that `deepspeed_config.deepspeed_config_file` names, already read.
    """
    reading = Reading(origin)
    block = Block(reading, tree)
    kind = block.word("distributed_type", known=KINDS)
    read_precision(block)
    read_compile(block)
    if block.switch("use_cpu"):
        reading.becomes("use_cpu true", "engine.device", "cpu")
    wanted = block.whole("num_processes", least=-1)
    if wanted is not None and wanted > 0 and wanted != ranks:
        reading.told.append(f"{origin}: num_processes {wanted}: this run has {ranks}; `--gpus {wanted}` starts as many")
    blocks = {key: block.block(key) for key in BLOCKS}
    if blocks["megatron_lm_config"].left:
        block.refuse("megatron_lm_config", "Megatron-LM is not had; say distributed_type: FSDP")
    read_parallelism(blocks["parallelism_config"])
    if kind == "DEEPSPEED":
        read_deepspeed(blocks["deepspeed_config"], ranks, engine)
    elif kind == "FSDP":
        read_fsdp(blocks["fsdp_config"])
    elif kind is not None:
        reading.becomes(f"distributed_type {kind}", "engine.parallel", {"name": "ddp"})
    for key, used in (("deepspeed_config", "DEEPSPEED"), ("fsdp_config", "FSDP")):
        if kind != used and blocks[key].left:
            reading.told.append(f"{origin}: {key}: not read, for distributed_type is {kind}")
    block.close(keys("idle"), taken=TAKEN)
    return reading


@lru_cache
def keys(kind: str) -> dict[str, str]:
    """Keys of the table with the reason why they are not needed, or not to be had."""
    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))[kind]


def read_precision(block: Block) -> None:
    """`mixed_precision`; "no" leaves it to the recipe."""
    older = block.switch("fp16")
    if block.left.get("mixed_precision") is False:  # a bare `no` of YAML
        block.left["mixed_precision"] = "no"
    word = block.word("mixed_precision", known=["no", "bf16", "fp16", "fp8"]) or ("fp16" if older else "no")
    if word == "fp8":
        block.refuse("mixed_precision", "products of 8 bits are not had this way; say bf16")
    if word == "no":
        block.reading.not_needed("mixed_precision no", "engine.precision stays as the recipe has it")
    else:
        block.reading.becomes(f"mixed_precision {word}", "engine.precision", word)


def read_compile(block: Block) -> None:
    """`dynamo_config`: whether torch's compiler fuses blocks."""
    inner = block.block("dynamo_config")
    backend = inner.take("dynamo_backend") or block.take("dynamo_backend")
    for key in list(inner.left):
        block.reading.not_needed(inner.at(key), "the compiler is asked for one block at a time")
    if backend and str(backend).lower() != "no":
        block.reading.becomes(f"dynamo_backend {backend}", "engine.compile", True)


def read_parallelism(block: Block) -> None:
    """`parallelism_config`: cuts of other kinds than by data."""
    prefix = "parallelism_config_"
    block.left = {key if key.startswith(prefix) else prefix + key: value for key, value in block.left.items()}
    block.close(keys("parallelism_idle"), keys("parallelism_refused"), taken=[])


def read_deepspeed(block: Block, ranks: int, engine: dict[str, Any] | None) -> None:
    """`deepspeed_config`: a stage and a few numbers, or a file that says everything."""
    reading = block.reading
    file = block.take("deepspeed_config_file")
    if engine is not None:
        beside = [key for key in block.left if key not in keys("deepspeed_idle")]
        if beside:
            block.refuse(beside[0], f"{file} says it; take one of the two out")
        reading.take_in(deepspeed(engine, ranks, f"{reading.origin}: {file}"))
    else:
        stage = block.whole("zero_stage")
        stage = 2 if stage is None else stage  # Accelerate's own default
        if stage >= len(STAGES):
            block.refuse("zero_stage", f"0, 1, 2 or 3 is expected, found {stage}")
        devices = {key: block.word(f"{key}_device", known=DEVICES) for key in (STATES, PARAMS)}
        for key, device in devices.items():
            if device == "nvme":
                block.refuse(f"{key}_device", "nothing goes to NVMe; say cpu")
        moved = [key for key, device in devices.items() if device == "cpu"]
        deal_out(reading, f"zero_stage {stage}", STAGES[stage], moved)
        read_steps(block)
    taken = ["deepspeed_config_file", "zero_stage", "offload_optimizer_device", "offload_param_device"]
    block.close(keys("deepspeed_idle"), taken=[*taken, "gradient_accumulation_steps", "gradient_clipping"])


def read_steps(block: Block) -> None:
    """What a step adds up and how long its gradient may be; the rows of a pass stand in no Accelerate file."""
    passes = block.whole("gradient_accumulation_steps", least=1)
    if passes is not None:
        why = "the recipe's data.batch is the whole step of all ranks, in as many passes as fit"
        block.reading.not_needed(f"gradient_accumulation_steps {passes}", why)
    clipping = block.number("gradient_clipping")
    if clipping is not None:
        block.reading.becomes(f"gradient_clipping {clipping}", "engine.max_grad_norm", clipping or None)


def read_fsdp(block: Block) -> None:
    """`fsdp_config` of either version."""
    block.left = {key if key.startswith("fsdp_") else f"fsdp_{key}": value for key, value in block.left.items()}
    version = block.whole("fsdp_version") or 1
    strategy = block.word("fsdp_sharding_strategy", known=list(STRATEGIES))
    reshard = block.word("fsdp_reshard_after_forward", known=[*STRATEGIES, *RESHARD])
    # launchers fill in what was not asked: a strategy under the second version, or true under the first
    if version > 1:
        found, name = f"fsdp_reshard_after_forward {reshard or 'true'}", RESHARD.get(reshard or "true", "fsdp")
    else:
        asked = [word for word in (reshard, strategy) if word in STRATEGIES]
        word = next((word for word in asked if STRATEGIES[word] != "fsdp"), *asked[:1] or ["FULL_SHARD"])
        found, name = word, STRATEGIES[word]
    moved = [key for key in ["fsdp_offload_params"] if block.switch(key)]
    deal_out(block.reading, f"FSDP {version}, {found}", name, moved)
    if block.switch("fsdp_activation_checkpointing"):
        block.reading.becomes("fsdp_activation_checkpointing true", "engine.gradient_checkpointing", "full")
    if block.switch("fsdp_activation_checkpointing_offload"):
        block.reading.becomes("fsdp_activation_checkpointing_offload true", "engine.offload_activations", True)
    block.close(keys("fsdp_idle"), taken=["fsdp_sharding_strategy", "fsdp_reshard_after_forward", "fsdp_offload_params",
                "fsdp_activation_checkpointing", "fsdp_activation_checkpointing_offload"])  # fmt: skip
