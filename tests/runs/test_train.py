"""A run from a recipe to an artifact that others load: what it writes, learns, measures and repeats."""

import importlib
import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from danlu.core.errors import DataError, UserError
from danlu.engine import session
from danlu.engine.checkpoint_folder import Checkpoint
from danlu.engine.metrics import read_metrics
from danlu.models.adapters import adapters
from danlu.models.load import ModelConfig, build_model, load_model
from danlu.runs.recipe import load_recipe
from danlu.runs.start import start

WORDS = ["one", "two", "three", "four", "five", "six"]


def write_rows(path: Path, count: int = 24, answer: str = "yes it is {word} ") -> Path:
    rows = [
        {"instruction": f"is it {word}?", "output": answer.format(word=word) * (number % 3 + 1)}
        for number, word in ((number, WORDS[number % len(WORDS)]) for number in range(count))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def train(tmp_path):
    """`train("run", "engine.steps=2", ...)`: the folder of a finished run on tiny-llama."""
    write_rows(tmp_path / "rows.jsonl")

    def train(folder: str, *settings: str, recipe: str = "sft_lora") -> Path:
        given = [
            "model.path=builtin:tiny-llama",
            f"data.sources={tmp_path / 'rows.jsonl'}",
            f"data.cache={tmp_path / 'cache'}",
            "data.workers=1",
            "data.held_out=0",
            "data.batch={rows: 4}",
            "data.pack_tokens=64",
            "engine.precision=fp32",
            "engine.optimizer.lr=1e-2",
            "hooks=[metrics_file]",
            f"folder={tmp_path / folder}",
        ]
        start(recipe, [*given, *settings])
        return tmp_path / folder

    return train


def events(folder: Path, event: str) -> list[dict]:
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["event"] == event]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in events(folder, "step")]


def trained(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """The fp32 weights that learn, by the model's own names, after a step."""
    masters = Checkpoint.open(folder / f"checkpoints/step-{step:06}").tensors("masters")
    return {name.removeprefix("policy.model."): value for name, value in masters.items()}


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.tensor([[3, 50, 7, 99, 12]])).logits


def final_logits(folder: Path, adapter: str) -> torch.Tensor:
    """By plain transformers, or plain peft."""
    if adapter == "lora":
        base = json.loads((folder / "final/adapter_config.json").read_text())["base_model_name_or_path"]
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder / "final"))
    else:
        model = AutoModelForCausalLM.from_pretrained(folder / "final")
    return logits_of(model)


ADAPTERS = {"lora": "{name: lora, rank: 4}", "full": "full", "freeze": "{name: freeze, blocks: 1}"}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_artifact_loads_in_plain_transformers_and_peft_as_it_was_trained(train, adapter):
    folder = train("run", "engine.steps=3", f"adapter={ADAPTERS[adapter]}")
    found = final_logits(folder, adapter)
    assert torch.equal(logits_of(load_model(folder / "final")), found)
    begun = adapters[adapter](**({"blocks": 1} if adapter == "freeze" else {"rank": 4} if adapter == "lora" else {}))
    model = begun.apply(build_model(ModelConfig(path="builtin:tiny-llama"), torch.float32))
    values = trained(folder, 3)
    assert values.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.load_state_dict(values, strict=False)
    assert torch.equal(logits_of(model), found)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_training_changes_the_model_and_only_what_learns(train, tiny, adapter):
    folder = train("run", "engine.steps=2", f"adapter={ADAPTERS[adapter]}")
    base = AutoModelForCausalLM.from_pretrained(tiny("llama"))
    before = logits_of(base)
    assert (final_logits(folder, adapter) - before).abs().max() > 1e-3
    if adapter == "freeze":
        after = AutoModelForCausalLM.from_pretrained(folder / "final").state_dict()
        changed = {name for name, value in base.state_dict().items() if not torch.equal(after[name], value)}
        assert changed
        assert all("layers.1." in name for name in changed)


def test_the_tokenizer_and_template_come_along(train):
    folder = train("run", "engine.steps=1", "data.template=chatml")
    tokenizer = AutoTokenizer.from_pretrained(folder / "final")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")


def test_loss_falls_on_rows_that_can_be_learnt(train):
    curve = losses(train("run", "engine.steps=30", "adapter=full"))
    assert len(curve) == 30
    assert curve[-1] < 0.4 * curve[0]
    assert all(math.isfinite(loss) for loss in curve)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_its_own_recipe_repeats_a_run_exactly(train, tmp_path, precision):
    folder = train("run", "engine.steps=4", f"engine.precision={precision}", "adapter.dropout=0.1")
    start(str(folder / "run.yaml"), [f"folder={tmp_path / 'again'}"])
    assert losses(tmp_path / "again") == losses(folder)
    first, second = (sorted(path.glob("final/*.safetensors")) for path in (folder, tmp_path / "again"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    start(str(folder), [f"folder={tmp_path / 'by-folder'}"])
    assert losses(tmp_path / "by-folder") == losses(folder)


def test_another_seed_is_another_run(train):
    assert losses(train("one", "engine.steps=2")) != losses(train("two", "engine.steps=2", "engine.seed=7"))


def test_bf16_is_near_fp32(train):
    exact = losses(train("fp32", "engine.steps=5"))
    rounded = losses(train("bf16", "engine.steps=5", "engine.precision=bf16"))
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)


def test_a_run_folder_holds_all_that_it_promises(train):
    folder = train("run", "engine.steps=2", "data.held_out=4", "hooks=[console, metrics_file, plot]")
    for name in ("run.yaml", "environment.json", "metrics.jsonl", "data_report.json", "loss.png"):
        assert (folder / name).stat().st_size > 100, name
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "environment.json").read_text())["versions"]["torch"] == torch.__version__
    assert load_recipe(str(folder)).engine.steps == 2
    assert [path.name for path in (folder / "checkpoints").glob("step-*")] == ["step-000002"]
    assert not list(folder.rglob("*.tmp*"))


def test_the_data_report_counts_every_row(train, tmp_path):
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"instruction": "", "output": ""}) + "\n")
    folder = train("run", "engine.steps=1", "data.held_out=3")
    report = json.loads((folder / "data_report.json").read_text())
    [(name, rows)] = report["sources"].items()
    assert (name, rows["rows_in"], rows["rows_out"]) == ("rows", 25, 24)
    assert sum(reason["count"] for reason in rows["dropped"].values()) == 1
    assert all(":25" in reason["places"][0] for reason in rows["dropped"].values())
    assert report["held_out"] == {"rows": 3}
    assert rows["tokens"] > rows["trained_tokens"] > 0
    assert rows["format"] == "alpaca"


def test_metrics_tell_each_step(train):
    folder = train("run", "engine.steps=6")
    lines = read_metrics(folder / "metrics.jsonl")
    assert [line["event"] for line in lines] == ["start", *["step"] * 6, "save", "end"]
    steps = events(folder, "step")
    for number, line in enumerate(steps, start=1):
        assert (line["step"], line["num_steps"], line["skipped"]) == (number, 6, False)
        assert line["epoch"] == pytest.approx(number * 4 / 24)
        assert line["tokens"] > line["trained_tokens"] > 0
        assert line["tokens_per_second"] == pytest.approx(line["tokens"] / line["seconds"])
        assert line["metrics"] == {"loss/rows": pytest.approx(line["loss"], rel=1e-5)}
        assert line["grad_norm"] > 0
    end = lines[-1]
    assert end["tokens"] == sum(line["tokens"] for line in steps)
    assert end["trained_tokens"] == sum(line["trained_tokens"] for line in steps)
    report = json.loads((folder / "data_report.json").read_text())["sources"]["rows"]
    assert (end["tokens"], end["trained_tokens"]) == (report["tokens"], report["trained_tokens"])  # one epoch


def test_the_learning_rate_follows_its_schedule(train):
    folder = train("run", "engine.steps=8", "engine.schedule={name: cosine, warmup: 2, floor: 0.1}")
    found = [line["lr"] for line in events(folder, "step")]
    up = [0.0, 0.005]
    down = [0.01 * (0.1 + 0.9 * (1 + math.cos(math.pi * step / 6)) / 2) for step in range(6)]
    assert found == pytest.approx(up + down)


def test_epochs_count_steps_and_the_last_is_short(train):
    folder = train("run", "engine.epochs=2", "data.batch={rows: 7}")
    steps = events(folder, "step")
    assert len(steps) == steps[-1]["num_steps"] == 7  # 48 rows in sevens
    assert steps[-1]["epoch"] == 2.0


def test_gradients_are_clipped_to_their_limit(train, tiny):
    """SGD with a rate of 1 moves the weights by the gradient itself."""
    settings = ("engine.steps=1", "adapter=full", "engine.schedule=constant", "engine.optimizer={name: sgd, lr: 1.0}")
    before = AutoModelForCausalLM.from_pretrained(tiny("llama")).state_dict()
    norms, moves = {}, {}
    for limit in ("0.01", "100", "null"):
        folder = train(f"limit-{limit}", *settings, f"engine.max_grad_norm={limit}")
        norms[limit] = events(folder, "step")[0]["grad_norm"]
        moves[limit] = torch.stack([(value - before[name]).norm() for name, value in trained(folder, 1).items()]).norm()
    assert norms["0.01"] == norms["100"] == norms["null"] > 0.1
    assert moves["0.01"] == pytest.approx(0.01, rel=1e-3)
    assert moves["100"] == moves["null"] == pytest.approx(norms["null"], rel=1e-4)


def test_held_out_loss_has_a_line_for_each_source(train, tmp_path):
    other = write_rows(tmp_path / "other.jsonl", answer="no never {word} ")
    folder = train(
        "run", "engine.steps=4", f"data.sources={{mine: {tmp_path / 'rows.jsonl'}, other: {other}}}",
        "data.held_out=4", "engine.evaluate.every_steps=2",
    )  # fmt: skip
    evals = events(folder, "eval")
    assert [line["step"] for line in evals] == [0, 2, 4]
    for line in evals:
        assert list(line["sources"]) == ["mine", "other"]
        assert min(line["sources"].values()) < line["loss"] < max(line["sources"].values())
    assert evals[-1]["loss"] < evals[0]["loss"]
    facts = {f"{fact}/{name}" for fact in ("loss", "share", "epochs") for name in ("mine", "other")}
    assert facts == set().union(*(line["metrics"] for line in events(folder, "step")))


def test_what_each_source_gave_is_in_the_report_in_the_end(train, tmp_path, caplog):
    other = write_rows(tmp_path / "other.jsonl")
    folder = train(
        "run", "engine.steps=6", f"data.sources={{mine: {tmp_path / 'rows.jsonl'}, other: {other}}}",
        "data.batch={rows: 4}", "data.mixture={name: shares, shares: {mine: 3, other: 1}}",
    )  # fmt: skip
    realised = json.loads((folder / "data_report.json").read_text())["realised"]
    assert {name: one["rows"] for name, one in realised.items()} == {"mine": 18, "other": 6}
    assert realised["mine"]["share_of_rows"] == 0.75
    assert realised["mine"]["tokens"] + realised["other"]["tokens"] == sum(
        line["tokens"] for line in events(folder, "step")
    )
    assert realised["mine"]["epochs"] == 18 / len((tmp_path / "rows.jsonl").read_text().splitlines())
    assert all({"loss/mine", "loss/other"} <= line["metrics"].keys() for line in events(folder, "step"))


def test_a_source_may_be_only_measured(train, tmp_path):
    other = write_rows(tmp_path / "exam.jsonl", answer="no never {word} ")
    folder = train("run", "engine.steps=2", f"data.held_out_sources={other}")
    assert [list(line["sources"]) for line in events(folder, "eval")] == [["exam"], ["exam"]]
    assert all(list(line["metrics"]) == ["loss/rows"] for line in events(folder, "step"))


@pytest.mark.parametrize(("optimizer", "first"), [("{name: sgd, lr: 60.0}", False), ("{name: adamw, lr: 1.0}", True)])
def test_the_best_weights_are_kept_when_the_recipe_asks(train, optimizer, first):
    wild = ["engine.schedule=constant", "engine.max_grad_norm=null", f"engine.optimizer={optimizer}", "adapter=full"]
    every = ["engine.steps=12", "data.held_out=4", "engine.evaluate={every_steps: 2, keep_best: true}"]
    folder = train("run", *wild, *every)
    best = min(events(folder, "eval"), key=lambda line: line["loss"])["step"]
    assert best == 0 if first else 0 < best < 12
    final = AutoModelForCausalLM.from_pretrained(folder / "final").state_dict()
    assert all(torch.equal(final[name], value) for name, value in trained(folder, best).items())


def test_patience_with_the_held_out_loss_ends_a_run(train):
    folder = train(
        "run", "engine.steps=50", "data.held_out=4", "engine.evaluate={every_steps: 1, patience: 2}",
        "engine.optimizer.lr=0",
    )  # fmt: skip
    assert len(events(folder, "step")) == 2
    assert (folder / "final").is_dir()


def test_options_of_memory_change_no_loss(train):
    expected = losses(train("plain", "engine.steps=3"))
    options = ["gradient_checkpointing=full", "gradient_checkpointing=1", "mlp_chunk=20", "offload_activations=true"]
    for number, option in enumerate(options):
        found = losses(train(f"run-{number}", "engine.steps=3", f"engine.{option}"))
        assert found == pytest.approx(expected, rel=1e-5)


def test_faster_second_matrices_learn_faster(train):
    settings = ("engine.steps=1", "engine.schedule=constant")
    plain, plus = (trained(train(str(ratio), *settings, f"adapter.plus_ratio={ratio}"), 1) for ratio in (1, 16))
    for name, value in plain.items():
        if "lora_B" in name:
            torch.testing.assert_close(plus[name], 16 * value, rtol=1e-3, atol=1e-6)


def test_a_folder_that_holds_a_run_is_never_written_over(train):
    folder = train("run", "engine.steps=1")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="already holds a run"):
        train("run", "engine.steps=1")
    assert all(path.read_bytes() == content for path, content in before.items())


def test_runs_without_a_folder_are_numbered(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("sft_lora", "sft_lora-2"):
        train("run", "engine.steps=1", "folder=null")
        assert (tmp_path / "runs" / name / "final").is_dir()


MINE = '''
from danlu.objectives.sft import SFT

class Loud(SFT):
    """Twice the loss."""

    factor: float = 2.0
    """how many times"""

    def loss(self, models, pack):
        loss = super().loss(models, pack)
        loss.total = loss.total * self.factor
        return loss
'''


def test_an_objective_from_outside_trains_when_the_recipe_allows_it(train, tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    chosen = "objective={name: 'my_losses:Loud', factor: 3}"
    with pytest.raises(UserError, match="objective: 'my_losses:Loud' is code from outside danlu"):
        train("refused", "engine.steps=1", chosen)
    plain = losses(train("plain", "engine.steps=1"))
    loud = losses(train("loud", "engine.steps=1", chosen, "allow_code=true"))
    assert loud == pytest.approx([3 * loss for loss in plain])
    assert "name: my_losses:Loud" in (tmp_path / "loud/run.yaml").read_text()


def test_what_a_model_knew_before_is_measured_once(train, monkeypatch):
    """A second run takes the loss before its first step from the first; another precision measures anew."""
    measured: list[int] = []
    held_out_loss = session.held_out_loss

    def counting(sources):
        measured.append(1)
        return held_out_loss(sources)

    monkeypatch.setattr(session, "held_out_loss", counting)
    settings = ("engine.steps=1", "data.held_out=4")
    first, again = (events(train(folder, *settings), "eval")[0] for folder in ("first", "again"))
    assert (again["step"], again["loss"], again["sources"]) == (0, first["loss"], first["sources"])
    assert len(measured) == 3  # before and after, and after
    other = events(train("other", *settings, "engine.precision=bf16"), "eval")[0]
    assert other["loss"] != first["loss"]
    assert len(measured) == 5


MEASURE = '''
from danlu.objectives.sft import SFT

class Mine(SFT):
    """Measures louder."""

    def measure(self, models, pack):
        loss = super().measure(models, pack)
        loss.total = loss.total * {factor}
        return loss
'''


def test_what_code_from_outside_measures_is_never_remembered(train, tmp_path, monkeypatch):
    """It may change between two runs and keep its name."""
    monkeypatch.syspath_prepend(tmp_path)
    settings = ("engine.steps=1", "data.held_out=4", "objective={name: 'my_measures:Mine'}", "allow_code=true")
    before = []
    for factor in (1, 2):
        (tmp_path / "my_measures.py").write_text(MEASURE.format(factor=factor))
        sys.modules.pop("my_measures", None)
        importlib.invalidate_caches()
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        before.append(events(train(f"run-{factor}", *settings), "eval")[0]["loss"])
    assert before[1] == pytest.approx(2 * before[0])


def test_data_over_its_limits_stops_before_anything_is_trained(train, tmp_path, monkeypatch):
    monkeypatch.setattr("danlu.objectives.sft.SFT.models", lambda *_: pytest.fail("a model was made"))
    with pytest.raises(
        DataError, match=r"duplicates: 18 of 24 rows \(75\.00%\), 10\.00% allowed by data\.limits\.dupl"
    ):
        train("run", "data.limits.duplicates=0.1")
    monkeypatch.undo()
    assert train("run", "data.limits.duplicates=0.8").is_dir()
