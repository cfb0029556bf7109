"""Out of memory in a step: the run goes on from the same global batch in less memory, and learns the same."""

import json
import math
from dataclasses import replace

import pytest
import torch

from danlu.core.errors import MemoryLimit
from danlu.engine.metrics import read_metrics
from danlu.engine.planner.plan import Choice
from danlu.engine.room import Room
from danlu.objectives.pretrain import Pretrain
from danlu.runs.plan import device_of, planner_of
from danlu.runs.recipe import load_recipe
from tests.runs.small_run import BF16, FULL, TOKENS, SmallRun, curve

EXACT = ("adapter.dropout=0.0",)


@pytest.fixture
def small(tmp_path):
    return SmallRun(tmp_path, EXACT)


@pytest.fixture
def overflow(monkeypatch):
    """`overflow(lambda number, pack, recomputed: …)`: where this is true, a pack's loss or its backward overflows."""
    loss = Pretrain.loss

    def install(full, *, backward=False):
        seen = []

        class Fill(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, grad):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

        def crowded(self, models, pack):
            blocks = models["policy"].inner.model.layers
            recomputed = sum(bool(block.gradient_checkpointing) for block in blocks)
            seen.append((pack.num_tokens, recomputed))
            found = loss(self, models, pack)
            if full(len(seen), pack, recomputed):
                if not backward:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
                found.total = Fill.apply(found.total)
            return found

        monkeypatch.setattr(Pretrain, "loss", crowded)
        return seen

    return install


def losses(folder):
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "step"]


def alerts(folder):
    return [line["message"] for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "alert"]


@pytest.mark.parametrize(
    ("kind", "backward"),
    [((), False), (FULL, True), (BF16, True)],
    ids=["lora, forward", "full, backward", "bf16, backward"],
)
def test_recomputing_more_goes_on_with_the_very_same_numbers(small, tmp_path, overflow, kind, backward):
    whole = small.go(tmp_path / "whole", *kind)
    overflow(lambda number, pack, recomputed: number == 5, backward=backward)  # the second pack of a step
    again = small.go(tmp_path / "again", *kind)
    assert curve(tmp_path / "again") == curve(tmp_path / "whole")
    assert again["final"] == whole["final"]
    assert len(alerts(tmp_path / "again")) == 1
    assert "micro-batch" in alerts(tmp_path / "again")[0]


@pytest.mark.parametrize("kind", [(), TOKENS], ids=["batches of rows", "batches of tokens"])
def test_smaller_packs_hold_the_same_global_batch(small, tmp_path, overflow, kind):
    small.go(tmp_path / "whole", *kind)
    seen = overflow(lambda number, pack, recomputed: pack.num_tokens > 50)
    small.go(tmp_path / "again", *kind)
    whole, again = losses(tmp_path / "whole"), losses(tmp_path / "again")
    assert again == pytest.approx(whole, rel=1e-4)
    facts = [[exact(line) for line in steps(tmp_path / name)] for name in ("whole", "again")]
    assert facts[0] == facts[1]
    assert seen[-1][0] <= 50
    assert len(alerts(tmp_path / "again")) <= 4


def steps(folder):
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "step"]


def exact(line):
    return {key: line[key] for key in ("step", "epoch", "tokens", "trained_tokens", "lr")}


def test_it_is_never_tried_endlessly(small, tmp_path, overflow):
    seen = overflow(lambda number, pack, recomputed: number > 8)
    with pytest.raises(MemoryLimit, match=r"out of memory in activations .*every block is recomputed") as refused:
        small.go(tmp_path / "run")
    assert refused.value.exit_code == 5
    assert len(seen) < 20
    finished = len(losses(tmp_path / "run"))
    assert finished >= 1
    saved = json.loads((tmp_path / f"run/checkpoints/step-{finished:06d}/progress.json").read_text())
    assert saved["step"] == finished


def test_an_update_that_overflows_ends_the_run_at_its_last_checkpoint(small, tmp_path, monkeypatch):
    update, calls = torch.optim.AdamW.step, []

    def crowded(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return update(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", crowded)
    with pytest.raises(MemoryLimit, match="8-bit optimiser"):
        small.go(tmp_path / "run")
    assert (tmp_path / "run/checkpoints/latest").read_text().strip() == "step-000002"


@pytest.mark.parametrize("kind", [(), TOKENS], ids=["batches of rows", "batches of tokens"])
def test_auto_learns_what_the_recipe_says(small, tmp_path, kind):
    auto = ("engine.gradient_checkpointing=auto",)
    small.go(tmp_path / "plain", *kind, "data.pack_tokens=48")
    small.go(tmp_path / "auto", *kind, "data.pack_tokens=auto", *auto)
    assert losses(tmp_path / "auto") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    facts = [[exact(line) for line in steps(tmp_path / name)] for name in ("plain", "auto")]
    assert facts[0] == facts[1]


def test_a_measured_peak_corrects_the_plan(monkeypatch):
    words = ["model.path=builtin:tiny-llama", "data.sources=[]", "data.max_length=128", "data.batch={tokens: 4096}"]
    run = load_recipe("sft_lora", [*words, "data.pack_tokens=auto", "engine.gradient_checkpointing=auto"])
    planner, _ = planner_of(run, device_of("h100"))
    room = Room.__new__(Room)
    room.planner, room.pack_tokens, room.checkpointing = planner, "auto", "auto"
    room.plan = planner.choose("auto", "auto")
    room.choice, used = room.plan.choice, []
    monkeypatch.setattr(Room, "use", lambda self, choice: used.append(choice))
    room.correct(room.plan.peak * 1.01)
    assert used == []
    assert room.choice == Choice(4096, 0)
    changing = room.plan.activations + room.plan.working
    planner.device = replace(planner.device, memory_bytes=room.plan.needed + 0.5 * changing)
    room.correct(room.plan.peak + changing)
    assert planner.activation_factor == pytest.approx(2.0)
    assert used == [Choice(2048, 0)]
    assert math.isclose(room.plan.terms["activations"], 2 * planner.footprint(2048).kept(0))
