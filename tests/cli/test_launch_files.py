"""What a person types with another tool's launch file, or with another tool's launcher."""

import json
import logging
import os
import signal
import subprocess
import sys

import pytest
import yaml

from danlu.engine.metrics import read_metrics
from tests.dialects.theirs import FSDP2, GENIE_LEFT_OVER, LLMBOX, PANDA_DEEPSPEED, llmbox, write

PLAIN = {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 3, "gradient_clipping": 0.5}
QUICK = ["engine.steps=2", "hooks=[metrics_file]", "engine.device=cpu", "engine.precision=fp32"]


@pytest.fixture
def told(caplog):
    """`told("words")`: whether one line of the log holds them."""
    caplog.set_level(logging.INFO)
    return lambda words: any(words in line for line in caplog.messages)


def launched(module: str, *words: str) -> str:
    """What a launcher and its processes said, once all went well; none of them is left behind."""
    command = [sys.executable, "-m", module, *words]
    launcher = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        said = launcher.communicate(timeout=120)[1]
    finally:
        if launcher.poll() is None:
            os.killpg(launcher.pid, signal.SIGKILL)
    assert launcher.returncode == 0, said
    return said


def settings(folder) -> dict:
    return yaml.safe_load((folder / "run.yaml").read_text())


def steps(folder) -> list[dict]:
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "step"]


def test_a_run_by_deepspeeds_launcher_and_file_goes_on_without_them(danlu_says, told, rows, tmp_path):
    path, folder = write(tmp_path / "ds.json", PLAIN), tmp_path / "run"
    words = ["--local_rank=0", "train", "sft_lora", *rows[:-1], *QUICK, f"folder={folder}", "--deepspeed", str(path)]
    danlu_says(*words)
    assert told(f"{path}: no zero_optimization -> engine.parallel: {{name: ddp}}")
    assert told("-> data.batch: {rows: 6}")  # what a step learns from, worked out
    engine = settings(folder)["engine"]
    assert (engine["parallel"]["name"], engine["max_grad_norm"]) == ("ddp", 0.5)
    assert settings(folder)["data"]["batch"] == {"rows": 6, "tokens": None}
    path.unlink()
    danlu_says("resume", str(folder))
    assert [line["step"] for line in steps(folder)] == [1, 2]


def test_torchs_older_launcher_speaks_after_the_verb(danlu_says, told, rows, tmp_path):
    path, folder = write(tmp_path / "config.yaml", GENIE_LEFT_OVER), tmp_path / "run"
    danlu_says("train", "--local-rank", "0", "sft_lora", "--accelerate", str(path), *rows, *QUICK, f"folder={folder}")
    assert told("deepspeed_config: not read, for distributed_type is MULTI_GPU")
    assert settings(folder)["engine"]["precision"] == "fp32"  # the user's own word


def test_the_words_of_accelerates_launcher_are_not_left_for_others(danlu_says, told, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "0")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    danlu_says("train", "sft_lora", *rows, *QUICK, f"folder={tmp_path / 'run'}")
    assert told("accelerate launch: zero_stage 0 -> engine.parallel: {name: ddp}")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    danlu_says("resume", str(tmp_path / "run"))


MOVED = {None: "none", "optimizer": "optimizer", "params": "all"}
"""what a recipe moves to the host, in a plan's words"""


@pytest.mark.parametrize("name", LLMBOX)
def test_a_plan_knows_what_a_file_means(danlu_says, tmp_path, name):
    path = write(tmp_path / name, llmbox(name))
    recipe = ["sft_full", "model.path=builtin:tiny-llama", "--gpu", "h100", "--gpus", "2"]
    kind, moved = LLMBOX[name][1]["name"], LLMBOX[name][1].get("offload")
    by_file = danlu_says("plan", *recipe, "--deepspeed", str(path), "--json").out
    by_hand = danlu_says("plan", *recipe, "--parallel", kind, "--offload", MOVED[moved], "--json").out
    assert json.loads(by_file)[0]["terms"] == json.loads(by_hand)[0]["terms"]


def test_an_override_inside_a_hydra_file(danlu_says, told, tmp_path):
    path = write(tmp_path / "panda.yaml", PANDA_DEEPSPEED)
    words = ["plan", "sft_full", "model.path=builtin:tiny-llama", "--gpu", "h100", "--deepspeed", str(path)]
    danlu_says(*words, "ds_cfg.zero_optimization.stage=2")
    assert told("ds_cfg.zero_optimization.stage 2 -> engine.parallel: {name: zero2}")
    assert "zero_optimization.stag: unknown key" in danlu_says(*words, "ds_cfg.zero_optimization.stag=2", code=2).err


@pytest.mark.slow
def test_a_batch_is_worked_out_for_as_many_processes_as_are_started(rows, tmp_path):
    path = write(tmp_path / "ds.json", PLAIN | {"zero_optimization": {"stage": 3}})
    words = [*rows[:-1], *QUICK, "data.max_length=64", "data.pack_tokens=64"]
    words += ["data.held_out=0", f"folder={tmp_path / 'run'}"]
    said = launched("danlu", "train", "sft_lora", *words, "--gpus", "2", "--deepspeed", str(path))
    assert said.count("x 2 ranks -> data.batch: {rows: 12}") == 1
    assert settings(tmp_path / "run")["data"]["batch"]["rows"] == 12
    assert settings(tmp_path / "run")["engine"]["parallel"]["name"] == "zero3"


@pytest.mark.slow
def test_accelerates_own_launcher_starts_a_run(danlu_says, rows, tmp_path):
    path = write(tmp_path / "fsdp.yaml", FSDP2 % "true" + "main_process_port: 0\n")
    quick = [*rows, *QUICK, "data.max_length=64", "data.pack_tokens=64"]
    danlu_says("train", "sft_lora", *quick, f"folder={tmp_path / 'one'}")
    words = ["-m", "danlu", "train", "sft_lora", *quick, f"folder={tmp_path / 'two'}"]
    said = launched("accelerate.commands.launch", "--config_file", str(path), *words)
    assert "accelerate launch: FSDP 2, fsdp_reshard_after_forward true -> engine.parallel: {name: fsdp}" in said
    assert settings(tmp_path / "two")["engine"]["parallel"]["name"] == "fsdp"
    one, two = ([line["loss"] for line in steps(tmp_path / name)] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-6)
