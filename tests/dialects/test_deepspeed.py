"""DeepSpeed's JSON files are read as they are; what cannot be had is refused by name."""

import json

import pytest

from danlu.core.errors import UserError
from danlu.dialects.deepspeed import deepspeed
from tests.dialects.theirs import GENIE_JSON, LLMBOX, llmbox


@pytest.mark.parametrize("name", LLMBOX)
def test_llmboxs_seven_files_load_and_tell_their_stage_and_offload(name):
    reading = deepspeed(llmbox(name), 2, name)
    meant = LLMBOX[name][1]
    assert reading.settings == {"engine.parallel": meant, "engine.precision": "bf16"}
    [line] = [line for line in reading.told if "engine.parallel" in line]
    assert all(word in line for word in (f"stage {name[4]}", *meant.values()))


def test_llm_genies_file_leaves_everything_that_is_auto_to_the_recipe():
    reading = deepspeed(json.loads(GENIE_JSON), 8)
    assert reading.settings == {"engine.parallel": {"name": "zero2"}}
    assert len(reading.idle["auto: the recipe's value stays"]) == 4
    for key in ("zero_allow_untested_optimizer", "overlap_comm", "allgather_bucket_size", "fp16.loss_scale"):
        assert any(key in line for line in reading.lines)


def test_every_key_is_accounted_for():
    tree = llmbox("ds_z3_offload_param_optim_bf16.json")
    reading = deepspeed(tree, 2)
    told = "\n".join(reading.lines)
    for key in [*tree["zero_optimization"], *tree]:
        if key not in ("zero_optimization", "wall_clock_breakdown"):
            assert key in told, key


@pytest.mark.parametrize(
    ("tree", "precision"),
    [
        ({"bf16": {"enabled": True}}, "bf16"),
        ({"bfloat16": {"enabled": True}, "fp16": {"enabled": False}}, "bf16"),
        ({"fp16": {"enabled": True, "auto_cast": True}}, "fp16"),
        ({"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}, "bf16"),
        ({"fp16": {"enabled": False}}, "fp32"),
        ({"bf16": {"enabled": False}, "fp16": {"enabled": False}}, "fp32"),
        ({"bf16": {"enabled": "auto"}, "fp16": {"enabled": False}}, None),
        ({}, None),
    ],
)
def test_precision(tree, precision):
    assert deepspeed(tree, 1).settings.get("engine.precision") == precision


def test_two_precisions_are_refused_as_deepspeed_does():
    with pytest.raises(UserError, match="choose one"):
        deepspeed({"bf16": {"enabled": True}, "fp16": {"enabled": True}}, 1)


@pytest.mark.parametrize(("given", "meant"), [(0.3, 0.3), (1, 1), (0, None)])
def test_clipping(given, meant):
    assert deepspeed({"gradient_clipping": given}, 1).settings["engine.max_grad_norm"] == meant


@pytest.mark.parametrize(
    ("zero", "meant"),
    [
        (True, {"name": "zero1"}),
        ({"stage": 2, "cpu_offload": True}, {"name": "zero2", "offload": "optimizer"}),
        ({"stage": 3, "cpu_offload_params": True}, {"name": "zero3", "offload": "params"}),
        ({"stage": 3, "offload_param": {"device": "none"}}, {"name": "zero3"}),
        ({"stage": 2, "offload_param": {"device": "cpu"}}, {"name": "zero2"}),  # only stage 3 can move weights
        ({"stage": 0, "offload_optimizer": {"device": "cpu"}}, {"name": "ddp"}),
    ],
)
def test_older_words_and_offload_that_has_nothing_to_move(zero, meant):
    assert deepspeed({"zero_optimization": zero}, 1).settings["engine.parallel"] == meant


def test_optimizer_and_scheduler_become_ours():
    params = {"lr": 2e-5, "betas": [0.9, 0.95], "eps": 1e-6, "weight_decay": 0.1, "torch_adam": True}
    climb = {"warmup_min_lr": 0, "warmup_max_lr": 3e-5, "warmup_num_steps": 100, "total_num_steps": 1000}
    tree = {"optimizer": {"type": "Adam", "params": params}, "scheduler": {"type": "WarmupDecayLR", "params": climb}}
    settings = deepspeed(tree, 1).settings
    assert settings["engine.optimizer"] == {
        "name": "adamw", "lr": 2e-5, "weight_decay": 0.1, "betas": [0.9, 0.95], "eps": 1e-6
    }  # fmt: skip
    assert settings["engine.schedule"] == {"name": "linear", "curve": "log", "warmup": 100}  # log is their default
    assert settings["engine.optimizer.lr"] == 3e-5
    assert settings["engine.steps"] == 1000


@pytest.mark.parametrize(
    ("kind", "params", "meant"),
    [
        (
            "WarmupLR",
            {"warmup_type": "linear", "warmup_num_steps": 1},
            {"name": "warmup", "curve": "linear", "warmup": 2},
        ),
        ("WarmupCosineLR", {"warmup_num_steps": 10}, {"name": "cosine", "curve": "log", "warmup": 10, "floor": 0.0001}),
        ("WarmupDecayLR", {"warmup_num_steps": "auto"}, {"name": "linear", "curve": "log"}),
    ],
)
def test_schedules(kind, params, meant):
    assert deepspeed({"scheduler": {"type": kind, "params": params}}, 1).settings["engine.schedule"] == meant


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"zero_optimisation": {"stage": 2}}, "did you mean 'zero_optimization'"),
        ({"zero_optimization": {"stage": 2, "overlap_com": True}}, "did you mean 'overlap_comm'"),
        ({"zero_optimization": {"stag": 2}}, "zero_optimization.stag: unknown key; did you mean 'stage'"),
        ({"zero_optimization": {"stage": 4}}, "0, 1, 2 or 3"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}, "device: nothing goes to NVMe"),
        ({"zero_optimization": {"stage": 2, "zenflow": {"topk_ratio": 0.1, "select_interval": 4}}}, "zenflow"),
        ({"scheduler": {"type": "OneCycle", "params": {}}}, "OneCycle is not had"),
        ({"scheduler": {"type": "WarmupLr"}}, "did you mean 'WarmupLR'"),
        ({"scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 1e-6}}}, "rates climb from 0"),
        ({"optimizer": {"type": "OneBitAdam", "params": {"lr": 1e-4}}}, "OneBitAdam is not had"),
        ({"optimizer": {"type": "AdmW"}}, "did you mean 'AdamW'"),
        ({"optimizer": {"type": "AdamW", "params": {"max_grad_norm": 0.5}}}, "say gradient_clipping"),
        ({"optimizer": {"type": "AdamW", "params": {"betas": [0.9]}}}, "two numbers below 1"),
        ({"optimizer": {"type": "Adam", "params": {"adam_w_mode": False, "weight_decay": 0.1}}}, "adam_w_mode"),
        ({"gradient_clipping": "often"}, "gradient_clipping: a number"),
        ({"bf16": True}, "bf16: a mapping is expected"),
        ({"elasticity": {"enabled": True}}, "the global batch never changes by itself"),
        ({"tensor_parallel": {"autotp_size": 4}}, "matrices are not cut"),
        ({"amp": {"enabled": True, "opt_level": "O1"}}, "Apex"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_not_to_be_had_is_named_with_what_to_do(tree, words):
    with pytest.raises(UserError, match="ds.json: ") as error:
        deepspeed(tree, 1, "ds.json")
    assert words in str(error.value)


def test_what_is_switched_off_is_no_trouble():
    off = {"elasticity": {"enabled": False}, "amp": {"enabled": False}, "tensor_parallel": {"autotp_size": 1},
           "compression_training": {"weight_quantization": {"shared_parameters": {"enabled": False}}}}  # fmt: skip
    assert deepspeed(off, 1).settings == {"engine.parallel": {"name": "ddp"}}
