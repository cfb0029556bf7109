"""What a person types: every verb has help, recipes can be listed, shown and described, and `train` trains."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import danlu
from danlu.core.config import load
from danlu.runs.recipe import load_recipe, shipped
from danlu.runs.train_run import TrainRun

COMMANDS = [
    ["train"],
    ["resume"],
    ["plan"],
    ["chat"],
    ["quickstart"],
    ["version"],
    ["recipe", "list"],
    ["recipe", "show"],
    ["recipe", "schema"],
    ["data", "show"],
    ["data", "fill"],
    ["data", "list"],
    ["data", "fetch"],
]


def test_help_names_every_command(danlu_says):
    said = danlu_says("--help").out
    for words in COMMANDS:
        assert words[0] in said
    assert "a recipe in, a model out" in said


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_for_itself_and_all_it_takes(danlu_says, words):
    said = danlu_says(*words, "--help").out
    assert "Usage:" in said
    for line in re.findall(r"--[a-z-]+ +.*|\* +\w+ +.*", said):
        assert re.search(r"[a-z]{3,}", line.partition("  ")[2]), line


def test_without_words_it_shows_help_and_fails(danlu_says):
    assert danlu_says(code=2).out.count("Usage:") == 1


def test_it_says_its_version(danlu_says):
    assert danlu_says("version").out.strip() == danlu.__version__


def test_an_unknown_command_is_told_the_nearest(danlu_says):
    assert "train" in danlu_says("trian", code=2).err


def test_it_can_be_started_as_a_module_and_as_a_command(tmp_path):
    for start in ([sys.executable, "-m", "danlu"], [str(Path(sys.executable).parent / "danlu")]):
        done = subprocess.run([*start, "version"], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, danlu.__version__), done.stderr


def test_recipes_are_listed_with_what_they_are_for(danlu_says):
    lines = danlu_says("recipe", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == shipped()
    assert all(len(line.split()) > 5 for line in lines)


@pytest.mark.parametrize("name", shipped())
def test_a_shown_recipe_loads_equal(danlu_says, tmp_path, name):
    words = ["data.sources=[a.jsonl,b.jsonl]", "engine.optimizer.lr=1e-5"]
    (tmp_path / "shown.yaml").write_text(danlu_says("recipe", "show", name, *words).out)
    assert load_recipe(str(tmp_path / "shown.yaml")) == load_recipe(name, words)


@pytest.fixture
def schema(danlu_says) -> dict[str, Any]:
    return json.loads(danlu_says("recipe", "schema").out)


def nodes(tree: Any) -> list[dict[str, Any]]:
    """Every object in a schema."""
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    return ([tree] if isinstance(tree, dict) else []) + [node for each in inner for node in nodes(each)]


def test_every_reference_in_the_schema_leads_somewhere(schema):
    references = {node["$ref"] for node in nodes(schema) if isinstance(node.get("$ref"), str)}
    assert references
    for reference in references:
        assert reference.startswith("#/$defs/")
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


def test_every_setting_in_the_schema_has_help(schema):
    silent = [
        name
        for node in nodes(schema)
        if isinstance(node.get("properties"), dict)
        for name, setting in node["properties"].items()
        if "const" not in setting and not setting.get("description")
    ]
    assert silent == []


def test_the_schema_offers_every_part_by_its_name(schema):
    def names(setting: dict[str, Any]) -> list[str]:
        return [form["properties"]["name"]["const"] for form in setting["oneOf"] if "properties" in form]

    engine = schema["$defs"]["EngineConfig"]["properties"]
    objectives = (
        "bco cispo cpo dapo dpo dr_grpo grpo hinge ipo kto orpo ppo pretrain reinforce_plus_plus reward rloo robust"
    )
    assert names(schema["properties"]["objective"]) == [*objectives.split(), "sft", "simpo"]
    forms = {form["properties"]["name"]["const"]: form for form in schema["properties"]["objective"]["oneOf"]}
    rewards = names(forms["grpo"]["properties"]["rewards"]["items"])
    assert rewards == ["code", "exact", "function", "length", "model", "regex", "server"]
    assert names(forms["grpo"]["properties"]["writer"]) == ["local", "server"]
    assert names(schema["properties"]["adapter"]) == ["freeze", "full", "full_fp8", "lora", "qat"]
    assert {"adamw", "adamw8bit", "lamb", "lion", "muon", "schedule_free", "sgd"} <= set(names(engine["optimizer"]))
    assert "cosine" in names(engine["schedule"])
    assert "console" in names(schema["properties"]["hooks"]["items"])
    assert schema["$defs"]["DataConfig"]["properties"]["template"]["oneOf"][0] == {"type": "null"}


def test_every_setting_of_a_run_is_in_the_schema(schema):
    shown = load(TrainRun, {"model": {"path": "x"}, "data": {"sources": "y"}, "objective": "sft"}).model_dump(
        mode="json"
    )
    assert schema["properties"].keys() == shown.keys()
    for section, kind in (("data", "DataConfig"), ("engine", "EngineConfig"), ("model", "ModelConfig")):
        assert schema["$defs"][kind]["properties"].keys() == shown[section].keys()


def test_train_trains_and_its_words_are_settings(danlu_says, rows, tmp_path):
    said = danlu_says(
        "train", "sft_lora", *rows, "engine.steps=2", "engine.optimizer.lr=1e-3", f"folder={tmp_path / 'run'}"
    )
    assert (tmp_path / "run/final/adapter_model.safetensors").is_file()
    assert load_recipe(str(tmp_path / "run")).engine.optimizer.lr == 1e-3
    assert "final" in said.out + said.err


def test_train_without_resume_will_not_go_on_and_resume_will(danlu_says, rows, tmp_path):
    run = f"folder={tmp_path / 'run'}"
    danlu_says("train", "sft_lora", *rows, "engine.steps=2", run)
    danlu_says("resume", str(tmp_path / "run"))
    danlu_says("train", "sft_lora", *rows, "engine.steps=2", run, "--resume")
    danlu_says("train", str(tmp_path / "run"), "--resume")
    assert (
        "was written with other settings"
        in danlu_says("train", "sft_lora", *rows, "engine.steps=3", run, "--resume", code=7).err
    )
    danlu_says("train", "sft_lora", *rows, "engine.steps=3", run, "--resume", "--allow-config-change")


def test_data_show_shows_rows(danlu_says, rows):
    said = danlu_says("data", "show", "sft_lora", *rows)
    assert "is it" in said.out + said.err


def test_compress_says_what_it_did_and_unpack_gives_it_back(tmp_path, danlu_says):
    for name, count in (("MNBVC_news", 100), ("MNBVC_qa", 50)):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"text": "新闻 {n}"}}\n' for n in range(count)))
    words = ["data", "compress", f"{tmp_path}/MNBVC_news.jsonl", f"{tmp_path}/MNBVC_qa.jsonl", "--shard-size", "10"]
    assert danlu_says(*words, "--to", f"{tmp_path}/out").out == (
        f"processed {tmp_path}/MNBVC_news.jsonl...\ntotal line: 100\ntotal files: 10\n"
        f"processed {tmp_path}/MNBVC_qa.jsonl...\ntotal line: 50\ntotal files: 5\n"
    )
    assert "100 rows" in danlu_says("data", "unpack", f"{tmp_path}/out/MNBVC_news", "--to", f"{tmp_path}/b.jsonl").out
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "MNBVC_news.jsonl").read_bytes()
    assert (
        "several folders" in danlu_says("data", "unpack", f"{tmp_path}/out", "--to", f"{tmp_path}/c.jsonl", code=2).err
    )


def test_prepare_fills_the_cache_and_says_what_became_of_every_row(tmp_path, rows, danlu_says):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("objective: sft\n")
    assert "12 rows read, 12 kept" in danlu_says("data", "prepare", str(recipe), *rows).out
    assert list((tmp_path / "cache/tokens").glob("*/rows/tokens.bin"))
    assert "--executor" in danlu_says("data", "prepare", str(recipe), *rows, "--tasks", "2", code=2).err
