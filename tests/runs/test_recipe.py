"""Recipes are found by path, by a run's folder and by the name of a shipped one; what they say is checked."""

import pytest

from danlu.core.config import to_yaml
from danlu.core.errors import UserError
from danlu.runs.recipe import SHIPPED, find, load_recipe, shipped, summary_of
from danlu.runs.start import folder_of

RECIPE = "# Mine: danlu train\nmodel: {path: here}\ndata: {sources: rows.jsonl}\nobjective: sft\n"


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return path


def test_a_recipe_is_found_by_path_by_folder_and_by_name(mine, tmp_path):
    assert find(str(mine)) == mine
    assert find("sft_lora") == SHIPPED / "sft_lora.yaml"
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.yaml").write_text(RECIPE)
    assert find(str(tmp_path / "run")) == tmp_path / "run/run.yaml"


def test_a_file_wins_over_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sft_lora").write_text(RECIPE)
    assert find("sft_lora").resolve() == tmp_path / "sft_lora"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sft_lore", "sft_lore: no such recipe file; did you mean 'sft_lora'?"),
        ("zzz", "zzz: no such recipe file; shipped recipes: dpo, "),
        ("nowhere/run.yaml", "nowhere/run.yaml: no such recipe file"),
        (".", ".: no such recipe file"),
    ],
)
def test_an_unknown_recipe_is_told_the_nearest_one(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        find(name)
    assert words in str(caught.value)


def test_a_near_file_name_is_told(mine, tmp_path):
    with pytest.raises(UserError, match=r"mime.yaml: no such recipe file; did you mean '.*mine.yaml'"):
        find(str(tmp_path / "mime.yaml"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["objective.label_smooth=1"], "objective.label_smooth: unknown key; did you mean 'label_smoothing'?"),
        (["engine.stepz=1"], "engine.stepz: unknown key; did you mean 'steps'?"),
        (
            ["engine.optimizer={name: sgd}", "engine.optimizer.lrr=1"],
            "engine.optimizer.lrr: unknown key; did you mean 'lr'?",
        ),
        (["data.batch={rows: 4, tokens: 100}"], "data.batch: give either rows: (such as 16) or tokens:"),
        (["objective=stf"], "objective: danlu.objectives has no 'stf'; did you mean 'sft'?"),
        (["adapter=laura"], "adapter: danlu.models.adapters has no 'laura'"),
        (["engine.optimizer.momentum=1"], "engine.optimizer.momentum: unknown key (known: lr, weight"),
        (["engine.schedule=cosin"], "did you mean 'cosine'?"),
        (["hooks=[consol]"], "hooks.0: danlu.engine.hooks has no 'consol'; did you mean 'console'?"),
        (["engine.precision=fp8"], "engine.precision: Input should be 'auto', 'bf16', 'fp16' or 'fp32' (found 'fp8')"),
        (["engine.gradient_checkpointing=some"], "engine.gradient_checkpointing"),
        (["engine.steps=0"], "engine.steps: Input should be greater than 0"),
        (["data.held_out=-1"], "data.held_out"),
        (["engine.schedule={name: cosine, warmup: 1.5}"], "engine.schedule.warmup: a share of all steps below 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(mine, overrides, words):
    with pytest.raises(UserError) as caught:
        load_recipe(str(mine), overrides)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{mine}: ")


def test_a_recipe_of_ones_own_needs_a_model_data_and_an_objective(tmp_path):
    (tmp_path / "empty.yaml").write_text("{}")
    with pytest.raises(UserError) as caught:
        load_recipe(str(tmp_path / "empty.yaml"))
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["model", "data", "objective"]


def test_a_resolved_recipe_is_read_equal(mine, tmp_path):
    run = load_recipe(str(mine), ["engine.optimizer={name: sgd, momentum: 0.5}", "data.batch.tokens=512"])
    (tmp_path / "again.yaml").write_text(to_yaml(run))
    assert load_recipe(str(tmp_path / "again.yaml")) == run


def test_an_override_chooses_another_part_whole(mine):
    run = load_recipe(str(mine), ["adapter={name: freeze, blocks: 2}"])
    assert type(run.adapter).__name__ == "Freeze"
    assert type(load_recipe("sft_lora", ["adapter=full", "data.sources=x"]).adapter).__name__ == "Full"
    assert load_recipe("sft_lora", ["adapter.rank=4", "data.sources=x"]).adapter.rank == 4


def test_runs_are_named_after_their_recipe(mine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = load_recipe(str(mine))
    assert str(folder_of(run, mine, resume=False)) == "runs/mine"
    assert str(folder_of(run, tmp_path / "runs/mine/run.yaml", resume=False)) == "runs/mine"
    with pytest.raises(UserError, match="runs/mine: no run to resume; leave --resume out"):
        folder_of(run, mine, resume=True)
    chosen = load_recipe(str(mine), ["folder=there"])
    assert str(folder_of(chosen, mine, resume=True)) == "there"


def test_every_shipped_recipe_has_a_summary():
    assert shipped()
    assert all(summary_of(name) for name in shipped())


def test_a_setting_of_the_default_part_needs_no_name(mine):
    run = load_recipe(str(mine), ["engine.optimizer.lr=1e-3", "engine.schedule.warmup=0.1", "adapter.rank=4"])
    assert (run.engine.optimizer.lr, run.engine.schedule.warmup) == (1e-3, 0.1)
    assert "name: lora\n  rank: 4" in to_yaml(run)
