"""From files and environment to a recipe: what they say is there, and what the user says wins."""

import logging

import pytest
import yaml

from danlu.core.config import load, to_yaml
from danlu.core.errors import UserError
from danlu.dialects.launch_files import launch_overrides
from danlu.engine.parallel.base import parallels
from danlu.runs.recipe import load_recipe
from danlu.runs.train_run import TrainRun
from tests.dialects.theirs import (
    FAIRSCALE,
    GENIE_JSON,
    GENIE_LEFT_OVER,
    GENIE_YAML,
    LLMBOX,
    LLMS_TRAINER,
    PANDA_BOTH,
    PANDA_DEEPSPEED,
    llmbox,
    llms_trainer,
    write,
)

RECIPE = """model: {path: "builtin:tiny-llama"}
data: {sources: rows.jsonl, batch: {rows: 10}}
objective: sft
engine:
  max_grad_norm: 0.7
  optimizer: {name: lion, lr: 5e-5, weight_decay: 0.02, betas: [0.8, 0.9]}
  schedule: {name: wsd, warmup: 7, decay: 3}
"""


@pytest.fixture
def resolved(tmp_path, caplog):
    """`resolved("name.json", content, "key=value", ranks=2)`: the recipe with a file of another tool's."""
    caplog.set_level(logging.INFO)
    recipe = write(tmp_path / "recipe.yaml", RECIPE)

    def resolve(name: str, content, *overrides: str, ranks: int = 2, environ: dict[str, str] | None = None) -> TrainRun:
        path = content and write(tmp_path / name, content)
        engine, config = (path, None) if "accelerate" not in name else (None, path)
        environ = {"WORLD_SIZE": str(ranks)} | (environ or {})
        return load_recipe(str(recipe), launch_overrides(str(recipe), overrides, engine, config, environ))

    return resolve


def parallel_of(run: TrainRun) -> dict[str, str]:
    """How a run is shared, as a file of ours would have it, without what is not said there."""
    tree = run.model_dump(mode="json")["engine"]["parallel"]
    return {key: tree[key] for key in ("name", "offload") if tree.get(key, "none") != "none"}


@pytest.mark.parametrize("name", LLMBOX)
def test_llmboxs_files_make_the_engine_they_mean_and_the_log_shows_it(resolved, caplog, name):
    run = resolved(name, llmbox(name))
    meant = LLMBOX[name][1]
    assert parallel_of(run) == meant
    assert run.engine.precision == "bf16"
    assert (run.engine.max_grad_norm, run.data.batch.rows) == (0.7, 10)  # auto
    assert all(any(f"stage {name[4]}" in line and word in line for line in caplog.messages) for word in meant.values())


@pytest.mark.parametrize("name", LLMS_TRAINER)
def test_llms_trainers_files_too(resolved, name):
    run = resolved(f"accelerate_{name}", llms_trainer(name))
    assert parallel_of(run) == LLMS_TRAINER[name][1]
    assert (run.engine.precision, run.engine.max_grad_norm) == ("bf16", 1.0)


def test_llm_genies_files_too(resolved):
    run = resolved("accelerate.yaml", GENIE_YAML)
    assert (parallel_of(run), run.engine.precision, run.engine.max_grad_norm) == ({"name": "zero2"}, "fp16", 0.5)
    assert parallel_of(resolved("accelerate.yaml", GENIE_LEFT_OVER)) == {"name": "ddp"}
    run = resolved("ds_config.json", GENIE_JSON)
    assert (parallel_of(run), run.engine.precision, run.engine.max_grad_norm) == ({"name": "zero2"}, "auto", 0.7)


def test_pandallms_files_and_their_own_overrides(resolved):
    run = resolved("panda.yaml", PANDA_DEEPSPEED, "ds_cfg.zero_optimization.stage=2", "engine.steps=5")
    assert parallel_of(run) == {"name": "zero2"}
    assert (run.data.batch.rows, run.engine.steps, run.engine.optimizer.lr) == (64, 5, 1e-4)
    sharded = resolved("panda.yaml", PANDA_BOTH, "ds_cfg=null", "fairscale_config.move_params_to_cpu=true")
    assert parallel_of(sharded) == {"name": "fsdp", "offload": "params"}
    assert parallel_of(resolved("panda.yaml", f"fp16: False\n{FAIRSCALE}")) == {"name": "fsdp"}


def test_the_users_own_words_win(resolved, caplog):
    tree = llmbox("ds_z2_bf16.json") | {"train_micro_batch_size_per_gpu": 4, "gradient_clipping": 1.0}
    given = ["engine.parallel.name=zero3", "engine.precision=fp32", "data.batch.tokens=512", "data.batch.rows=null"]
    run = resolved("ds.json", tree, *given, "engine.max_grad_norm=null")
    assert parallel_of(run) == {"name": "zero3"}
    assert (run.engine.precision, run.engine.max_grad_norm, run.data.batch.tokens) == ("fp32", None, 512)
    for key in ("engine.precision", "engine.max_grad_norm", "data.batch"):
        assert f"{key}: as you typed it, not as a file says" in caplog.messages


def test_a_part_that_a_file_chooses_keeps_what_the_recipe_says_of_it(resolved):
    auto = {"lr": "auto", "betas": "auto", "eps": 1e-6, "weight_decay": "auto"}
    climb = {"type": "WarmupDecayLR", "params": {"warmup_num_steps": "auto", "warmup_max_lr": "auto"}}
    run = resolved("ds.json", {"optimizer": {"type": "AdamW", "params": auto}, "scheduler": climb})
    optimizer, schedule = (run.model_dump(mode="json")["engine"][key] for key in ("optimizer", "schedule"))
    assert optimizer == {"name": "adamw", "lr": 5e-5, "weight_decay": 0.02, "betas": [0.9, 0.999], "eps": 1e-6}
    assert schedule == {"name": "linear", "curve": "log", "warmup": 7}
    same = resolved("ds.json", {"optimizer": {"type": "Lion", "params": {"lr": 1e-5, "betas": "auto"}}})
    optimizer = same.model_dump(mode="json")["engine"]["optimizer"]
    assert optimizer == {"name": "lion", "lr": 1e-5, "weight_decay": 0.02, "betas": [0.8, 0.9]}


def test_accelerates_launcher_needs_no_flag_and_its_words_leave_the_environment(resolved):
    environ = {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu",
        "ACCELERATE_GRADIENT_CLIPPING": "1.0",
    }
    run = resolved("", None, environ=environ)
    assert parallel_of(run) == {"name": "zero3", "offload": "params"}
    assert (run.engine.precision, run.engine.max_grad_norm) == ("bf16", 1.0)


def test_a_deepspeed_file_that_accelerate_names_is_read(resolved, tmp_path):
    engine = write(tmp_path / "ds.json", llmbox("ds_z3_bf16.json"))
    text = (
        f"distributed_type: DEEPSPEED\ndeepspeed_config:\n  deepspeed_config_file: {engine}\n  zero3_init_flag: true\n"
    )
    assert parallel_of(resolved("accelerate.yaml", text)) == {"name": "zero3"}
    environ = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(engine)}
    assert parallel_of(resolved("", None, environ=environ)) == {"name": "zero3"}


def test_a_resolved_run_needs_no_file(resolved):
    run = resolved("ds.json", llmbox("ds_z3_offload_param_bf16.json") | {"train_micro_batch_size_per_gpu": 4})
    tree = yaml.safe_load(to_yaml(run))
    assert tree["engine"]["parallel"]["name"] == "zero3"
    assert load(TrainRun, tree) == run


def test_without_files_nothing_changes(resolved):
    assert resolved("", None) == resolved("", None, environ={"ACCELERATE_MIXED_PRECISION": "no"})
    assert parallel_of(resolved("", None)) == {"name": "ddp"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not a JSON file"),
        ('{"ds_cfg": ' + "[" * 800 + "]" * 800 + "}", "nested too deeply"),
        ("[]", "a mapping of keys to values is expected, found list"),
        ('{"bf16": {"enabled": true}, "bf16": {"enabled": false}}', "'bf16' stands there twice"),
        ('{"train_batch_size": 7, "gradient_accumulation_steps": 2}', "train_batch_size 7"),
    ],
)
def test_a_wrong_file_is_named(resolved, content, words):
    with pytest.raises(UserError) as error:
        resolved("ds.json", content)
    assert "ds.json" in str(error.value)
    assert words in str(error.value)


def test_a_missing_file_is_named(resolved, tmp_path):
    recipe = str(write(tmp_path / "recipe.yaml", RECIPE))
    with pytest.raises(UserError, match=r"ds_zero2\.json: no such file"):
        launch_overrides(recipe, [], tmp_path / "ds_zero2.json", None, {})


def test_an_override_of_a_file_that_is_not_there(resolved):
    with pytest.raises(UserError, match="give that as --deepspeed FILE"):
        resolved("", None, "ds_cfg.zero_optimization.stage=2")
    with pytest.raises(UserError, match="holds no such block"):
        resolved("ds.json", GENIE_JSON, "ds_cfg.zero_optimization.stage=2")


def test_every_name_that_files_become_is_one_of_ours():
    assert {"ddp", "zero1", "zero2", "zero3", "fsdp"} <= set(parallels)
