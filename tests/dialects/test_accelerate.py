"""Accelerate's YAML, of any kind, and what its launcher leaves for its processes, mean the same."""

import argparse
from unittest.mock import patch

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from danlu.core.errors import UserError
from danlu.dialects.accelerate import accelerate
from danlu.dialects.accelerate_environment import as_file, take_out
from tests.dialects.theirs import FSDP1, FSDP2, GENIE_LEFT_OVER, GENIE_YAML, LLMS_TRAINER, llms_trainer, write

OFFLOADED = {
    "engine.parallel": {"name": "fsdp", "offload": "params"},
    "engine.precision": "bf16",
    "engine.gradient_checkpointing": "full",
}


def read(text: str, ranks: int = 1):
    return accelerate(yaml.safe_load(text), ranks, "config.yaml")


@pytest.mark.parametrize("name", LLMS_TRAINER)
def test_llms_trainers_four_files(name):
    reading = read(llms_trainer(name), 4)
    assert reading.settings == {
        "engine.parallel": LLMS_TRAINER[name][1],
        "engine.precision": "bf16",
        "engine.max_grad_norm": 1.0,
    }
    stage = f"zero_stage {name[8]}"
    assert any(stage in line and LLMS_TRAINER[name][1]["name"] in line for line in reading.told)
    assert any("zero3_init_flag" in line for line in reading.lines)


def test_llm_genies_file():
    settings = {"engine.parallel": {"name": "zero2"}, "engine.precision": "fp16", "engine.max_grad_norm": 0.5}
    reading = read(GENIE_YAML, 4)
    assert reading.settings == settings
    assert any("gradient_accumulation_steps 4" in line and "data.batch" in line for line in reading.lines)


def test_a_block_left_over_beside_several_gpus_is_ddp_and_said():
    reading = read(GENIE_LEFT_OVER, 4)
    assert reading.settings["engine.parallel"] == {"name": "ddp"}
    assert "engine.max_grad_norm" not in reading.settings
    assert "config.yaml: deepspeed_config: not read, for distributed_type is MULTI_GPU" in reading.told


def test_both_versions_of_fsdp():
    assert read(FSDP1).settings == OFFLOADED
    assert read(FSDP2 % "true").settings == {"engine.parallel": {"name": "fsdp"}}
    assert read(FSDP2 % "false").settings == {"engine.parallel": {"name": "zero2"}}


@pytest.mark.parametrize(
    ("strategy", "name"),
    [("FULL_SHARD", "fsdp"), ("SHARD_GRAD_OP", "zero2"), ("NO_SHARD", "ddp"), ("HYBRID_SHARD", "fsdp"), (2, "zero2")],
)
def test_older_strategies(strategy, name):
    tree = {"distributed_type": "FSDP", "fsdp_config": {"fsdp_sharding_strategy": strategy, "min_num_params": 100}}
    assert accelerate(tree, 1).settings == {"engine.parallel": {"name": name}}


def test_another_number_of_processes_is_told():
    assert any("num_processes 4" in line for line in read(GENIE_YAML, 1).told)
    assert not any("num_processes" in line for line in read(GENIE_YAML, 4).told)


def test_the_rest_of_a_file():
    tree = {
        "distributed_type": "NO",
        "use_cpu": True,
        "mixed_precision": False,
        "dynamo_backend": "INDUCTOR",
        "fp16": False,
    }
    settings = accelerate(tree, 1).settings
    assert settings == {"engine.parallel": {"name": "ddp"}, "engine.device": "cpu", "engine.compile": True}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"distributed_type": "DEEPSPED"}, "did you mean 'DEEPSPEED'"),
        ({"distributed_type": "MEGATRON_LM", "megatron_lm_config": {}}, "distributed_type: found 'MEGATRON_LM'"),
        ({"distributed_type": "NO", "num_process": 4}, "num_process: unknown key; did you mean 'num_processes'"),
        ({"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stag": 2}}, "did you mean 'zero_stage'"),
        ({"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 7}}, "0, 1, 2 or 3"),
        (
            {"distributed_type": "FSDP", "fsdp_config": {"fsdp_sharding_strategy": "FULLSHARD"}},
            "did you mean 'FULL_SHARD'",
        ),
        ({"distributed_type": "NO", "mixed_precision": "fp8"}, "say bf16"),
        (
            {"distributed_type": "FSDP", "parallelism_config": {"parallelism_config_cp_size": 2}},
            "sequences are not cut",
        ),
    ],
)
def test_what_is_wrong_is_named(tree, words):
    with pytest.raises(UserError, match="config.yaml: ") as error:
        accelerate(tree, 1, "config.yaml")
    assert words in str(error.value)


def test_a_file_of_deepspeed_says_it_all_or_nothing():
    engine = {"zero_optimization": {"stage": 3}, "bf16": {"enabled": True}}
    tree = {
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {"deepspeed_config_file": "ds.json", "zero3_init_flag": True},
    }
    reading = accelerate(tree, 1, "config.yaml", engine)
    assert reading.settings == {"engine.parallel": {"name": "zero3"}, "engine.precision": "bf16"}
    tree["deepspeed_config"]["zero_stage"] = 2
    with pytest.raises(UserError, match="ds.json says it; take one of the two out"):
        accelerate(tree, 1, "config.yaml", engine)


def left_by_the_launcher(path, monkeypatch) -> dict[str, str]:
    """The environment that `accelerate launch --config_file` makes for its processes."""
    # what it asks of GPUs that are not here
    monkeypatch.setattr("accelerate.utils.launch.is_port_in_use", lambda port: False)
    args = launch_command_parser().parse_args(["--config_file", str(path), "train.py"])
    args, defaults, _ = _validate_launch_command(args)
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    made = prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)
    assert isinstance(args, argparse.Namespace)
    return made


@pytest.mark.parametrize(
    "text", [*map(llms_trainer, LLMS_TRAINER), GENIE_YAML, FSDP1, FSDP2 % "true", FSDP2 % "false",
             FSDP1.replace("fsdp_reshard_after_forward: FULL_SHARD", "fsdp_sharding_strategy: SHARD_GRAD_OP"),
             FSDP1.replace("fsdp_reshard_after_forward: FULL_SHARD", "fsdp_reshard_after_forward: SHARD_GRAD_OP")]
)  # fmt: skip
def test_the_launcher_leaves_what_its_file_says(text, tmp_path, monkeypatch):
    said = take_out(left_by_the_launcher(write(tmp_path / "config.yaml", text), monkeypatch))
    tree = as_file(said)
    assert tree is not None
    assert accelerate(tree, 4).settings == read(text, 4).settings


def test_what_would_wake_deepspeed_is_taken_out_and_the_rest_stays():
    with patch.dict("os.environ", {}, clear=True):
        environ = {
            "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "FSDP_VERSION": "2",
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_MIXED_PRECISION": "bf16", "RANK": "0",
            "WORLD_SIZE": "2", "ACCELERATE_DEBUG_MODE": "true",
        }  # fmt: skip
        said = take_out(environ)
    assert environ == {"RANK": "0", "WORLD_SIZE": "2", "ACCELERATE_DEBUG_MODE": "true"}
    assert said["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"


def test_a_launcher_that_asks_for_nothing_leaves_the_recipe_alone():
    tree = as_file({"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO"})
    assert tree is not None
    assert accelerate(tree, 2).settings == {}
    assert as_file({}) is None
