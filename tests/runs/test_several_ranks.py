"""A run by several processes gives the curve of a run by one, whatever they share and however they share it."""

import json
from pathlib import Path
from shutil import rmtree

import pytest
from safetensors.torch import load_file

from danlu.core.errors import UserError
from danlu.engine.metrics import read_metrics
from danlu.runs.recipe import load_recipe
from danlu.runs.start import start
from tests.runs.several import several
from tests.runs.small_run import FULL, SmallRun, write_rows
from tests.runs.test_preference_runs import PAIRS
from tests.runs.test_rollout_runs import OBJECTIVE, PPO

SMOOTH = ("adapter={name: lora, rank: 4}",)
"""nothing is dropped out: processes draw what they drop by themselves"""
PLACE = ("data.max_length=256", "data.pack_tokens=512", "data.template=chatml", "engine.optimizer.lr=1e-2")
OBJECTIVES = {
    "sft": (),
    "dpo": (*PLACE, "objective={name: dpo, sft_weight: 0.1}"),
    "reward": (*PLACE, "objective={name: reward}"),
    "kto": (*PLACE, "objective={name: kto}"),
    "base": (*PLACE, "objective={name: dpo, reference: base}"),
}


@pytest.fixture
def small(tmp_path):
    """`small(objective, *settings)`: a run over rows or pairs."""

    def run(objective: str, *settings: str) -> SmallRun:
        if objective != "sft":
            (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
        return SmallRun(tmp_path, (*OBJECTIVES[objective], *settings))

    return run


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    """`prompts(name)`: the settings of a run that learns from its own answers."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"say {number} and " + "more " * (number % 3)} for number in range(12)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def words(name: str) -> list[str]:
        several_steps = PPO if name == "ppo" else {"passes": 2, "minibatches": 2, "beta": 0.1}
        return [
            "model.path=builtin:tiny-llama",
            "adapter={name: lora, rank: 4}",
            "hooks=[metrics_file, samples]",
            "data.sources=prompts.jsonl",
            "data.cache=cache",
            "data.workers=1",
            "data.batch.rows=4",
            "data.pack_tokens=64",
            "data.held_out=3",
            "engine.precision=fp32",
            "engine.optimizer.lr=3e-4",
            "engine.schedule={name: constant}",
            f"objective={json.dumps({'name': name} | OBJECTIVE | several_steps)}",
        ]

    return words


def samples(folder: Path) -> list[dict]:
    """What was written."""
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def numbers(folder: Path) -> list[dict]:
    """Losses and norms of every step and measurement."""
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["event"] in ("step", "eval")]


def same_curve(found: Path, expected: Path) -> None:
    """To what fp32 sums in another order leave alike."""
    pairs = list(zip(numbers(found), numbers(expected), strict=True))
    assert pairs
    for mine, other in pairs:
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-6, abs=1e-6)
        assert mine.get("grad_norm", 0) == pytest.approx(other.get("grad_norm", 0), rel=1e-4)
        assert mine.get("tokens") == other.get("tokens")


def same_weights(found: Path, expected: Path) -> None:
    """What is left behind has the same names, dtypes and numbers."""
    for path in sorted((expected / "final").glob("*.safetensors")):
        mine, others = load_file(found / "final" / path.name), load_file(path)
        assert mine.keys() == others.keys()
        for name, other in others.items():
            assert mine[name].dtype == other.dtype
            assert (mine[name] - other).abs().max() <= 1e-4


@pytest.mark.parametrize("parallel", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_a_reference_is_worked_out_by_all(small, tmp_path, parallel):
    run = small("dpo", *SMOOTH, "objective={name: dpo, reference: precomputed}")
    run.go(tmp_path / "one")
    rmtree(tmp_path / "cache/references")
    words = ["sft_lora", *run.words(tmp_path / "two"), f"engine.parallel={parallel}"]
    assert several(2, words) == [0, 0]
    same_curve(tmp_path / "two", tmp_path / "one")


EVERY_TIME = {("sft", "ddp"), ("sft", "zero2"), ("dpo", "fsdp"), ("reward", "zero1")}
"""of all pairs, which are `slow` together"""
MATRIX = [
    pytest.param(objective, parallel, marks=[] if (objective, parallel) in EVERY_TIME else [pytest.mark.slow])
    for objective in OBJECTIVES
    for parallel in ("ddp", "fsdp", "zero1", "zero2", "zero3")
]


@pytest.mark.parametrize(("objective", "parallel"), MATRIX)
def test_two_processes_learn_what_one_learns(small, tmp_path, objective, parallel):
    run = small(objective, *SMOOTH)
    run.go(tmp_path / "one")
    words = ["sft_lora", *run.words(tmp_path / "two"), f"engine.parallel={parallel}"]
    assert several(2, words) == [0, 0]
    same_curve(tmp_path / "two", tmp_path / "one")
    same_weights(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("parallel", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_whole_weights_learn_alike(small, tmp_path, parallel):
    run = small("sft", *FULL)
    run.go(tmp_path / "one")
    words = ["sft_lora", *run.words(tmp_path / "two"), f"engine.parallel={parallel}"]
    assert several(2, words) == [0, 0]
    same_curve(tmp_path / "two", tmp_path / "one")
    same_weights(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize(
    ("name", "parallel"),
    [
        ("ppo", "fsdp"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (("ppo", "ddp"), ("grpo", "ddp"), ("grpo", "fsdp"))),
    ],
)
def test_answers_and_what_is_learnt_from_them_do_not_depend_on_who_writes(prompts, tmp_path, parallel, name):
    words = prompts(name)
    start("grpo", [*words, "folder=one"])
    assert several(2, ["grpo", *words, "folder=two", f"engine.parallel={parallel}"]) == [0, 0]
    same_curve(tmp_path / "two", tmp_path / "one")
    same_weights(tmp_path / "two", tmp_path / "one")
    one, two = ([read["answer"] for read in samples(tmp_path / folder)] for folder in ("one", "two"))
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["adapter={name: freeze, blocks: 1}"],
        ["adapter={name: lora, rank: 4}", "model.quantizer=nf4"],
        ["adapter={name: lora, rank: 4}", "model.quantizer=int8"],
        ["adapter={name: lora, rank: 4, embeddings: true}"],
        ["adapter={name: full}", "engine.optimizer=schedule_free", "engine.schedule={name: constant}"],
        ["adapter={name: full}", "engine.gradient_checkpointing=full"],
        ["adapter={name: full}", "engine.parallel={name: fsdp, offload: optimizer}"],
    ],
    ids=["freeze", "nf4", "int8", "embeddings", "schedule_free", "recomputed", "offload"],
)
def test_every_adapter_learns_what_is_dealt_out(small, tmp_path, settings):
    run = small("sft", *settings)
    run.go(tmp_path / "one")
    words = ["sft_lora", *run.words(tmp_path / "two")]
    assert several(2, [*words, *([] if "offload" in str(settings) else ["engine.parallel=fsdp"])]) == [0, 0]
    same_curve(tmp_path / "two", tmp_path / "one")
    same_weights(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize(
    ("objective", "parallel"),
    [
        ("dpo", "{name: fsdp, context: 2}"),
        pytest.param("sft", "{name: fsdp, context: 2}", marks=pytest.mark.slow),
        pytest.param("sft", "{name: ddp, context: 2}", marks=pytest.mark.slow),
        pytest.param("dpo", "{name: ddp, context: 2}", marks=pytest.mark.slow),
    ],
)
def test_processes_that_read_packs_together_learn_what_one_learns(small, tmp_path, objective, parallel):
    run = small(objective, *FULL)
    run.go(tmp_path / "one")
    words = ["sft_lora", *run.words(tmp_path / "two"), f"engine.parallel={parallel}"]
    assert several(2, words) == [0, 0]
    same_curve(tmp_path / "two", tmp_path / "one")
    same_weights(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["engine.parallel=fsdp", "engine.optimizer=muon"], "leaves each process some rows of every weight"),
        (["engine.parallel=zero2", "engine.offload_activations=true"], "say gradient_checkpointing: full"),
        (
            ["engine.parallel={name: ddp, context: 2}", "objective={name: grpo, rewards: [{name: length, most: 5}]}"],
            "do not write; grpo wants 1",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused_before_anything_loads(words, message):
    with pytest.raises(UserError, match=message):
        load_recipe("sft_lora", ["data.sources=[]", *words])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.path=builtin:tiny-bloom", "engine.parallel=fsdp"], "reads segments one after another"),
        (["engine.parallel={name: ddp, context: 3}"], "3 must divide the 2 processes"),
    ],
)
def test_what_only_the_model_tells_is_refused_before_a_step(small, tmp_path, settings, message):
    run = small("sft", *settings)
    write_rows(run.rows)
    assert several(2, ["sft_lora", *run.words(tmp_path / "two")], errors=tmp_path)[0] in (2, 4)
    assert message in (tmp_path / "error-0.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [["engine.parallel=ddp"], ["engine.parallel={name: zero3, context: 2}"]])
def test_four_processes_do(small, tmp_path, settings):
    run = small("sft", "data.batch.rows=12", *FULL)
    run.go(tmp_path / "one")
    assert several(4, ["sft_lora", *run.words(tmp_path / "four"), *settings]) == [0, 0, 0, 0]
    same_curve(tmp_path / "four", tmp_path / "one")
    same_weights(tmp_path / "four", tmp_path / "one")


@pytest.mark.parametrize("parallel", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_a_step_may_have_fewer_packs_than_there_are_processes(small, tmp_path, parallel):
    run = small("sft", "data.batch.rows=1", "data.held_out=1", "engine.steps=4", *SMOOTH)
    run.go(tmp_path / "one")
    assert several(3, ["sft_lora", *run.words(tmp_path / "three"), f"engine.parallel={parallel}"]) == [0, 0, 0]
    same_curve(tmp_path / "three", tmp_path / "one")


def test_the_first_process_speaks_for_all_and_the_others_keep_a_log(small, tmp_path):
    run = small("sft", "engine.steps=2", *SMOOTH)
    write_rows(run.rows)
    assert several(2, ["sft_lora", *run.words(tmp_path / "two")]) == [0, 0]
    assert "trainable params" in (tmp_path / "two/ranks/rank-1.log").read_text()
    for line in numbers(tmp_path / "two"):
        if line["event"] == "step":
            assert line["ranks"] == 2
            assert line["waited"]["others_seconds"] > 0
