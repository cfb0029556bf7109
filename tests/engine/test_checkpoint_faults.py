"""Kill a small training run at every file operation it makes: the next start always ends as if nothing had happened."""

import hashlib
import random
import shutil
from pathlib import Path

import pytest
import torch

from danlu.core.lock import Lock
from danlu.engine.checkpoint import Checkpoints
from danlu.engine.checkpoint_folder import Content
from danlu.engine.optimizer_state import optimizer_state, restore_optimizer
from tests.faults import Fault, every, run

STEPS, EVERY, LIMIT = 6, 2, 1


def train(folder: Path) -> dict:
    """A run like any other: a lock, a resume, noise, saves, rotation; returns what an oracle compares."""
    with Lock(folder / "run.lock"):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.ones(4))
        names = {weight: "weight"}
        optimizer = torch.optim.AdamW([weight], lr=0.1)
        store = Checkpoints(folder / "checkpoints", LIMIT, config={"lr": 0.1})
        store.sweep()
        found, first = store.latest_valid(), 0
        if found:
            first = found.step
            weight.data.copy_(found.tensors("model")["weight"])
            restore_optimizer(optimizer, names, found.tensors("optimizer"), found.state("optimizer"))
        for step in range(first + 1, STEPS + 1):
            torch.manual_seed(step)
            optimizer.zero_grad()
            (weight * torch.randn(4)).sum().backward()
            optimizer.step()
            if step % EVERY == 0:
                tensors, state = optimizer_state(optimizer, names)
                store.save(
                    step,
                    Content({"model": {"weight": weight.data}, "optimizer": tensors}, {"optimizer": state}),
                    best=step == 2 * EVERY,
                )
        content = [weight.data, *optimizer_state(optimizer, names)[0].values()]
        digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in content)).hexdigest()
        return {"first": first, "digest": digest, "kept": [path.name for path in store], "bad": bad(folder)}


def bad(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.bad*")]


def pointers_are_valid(folder: Path) -> bool:
    texts = [(folder / name).read_text() for name in ("latest", "best") if (folder / name).exists()]
    return all(text.endswith("\n") and (folder / text.strip()).is_dir() for text in texts)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".tmp" in path.name]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory) -> tuple[list[str], dict]:
    train(tmp_path_factory.mktemp("warm"))  # torch imports half of itself at the first step; not in every child
    folder = tmp_path_factory.mktemp("oracle")
    clean = run(lambda: train(folder), under=folder)
    assert clean.code == 0, clean.error
    return clean.operations, clean.value


def test_the_oracle_makes_the_operations_that_matter(oracle):
    operations, value = oracle
    assert {"mkdir", "save", "write", "fsync", "rename", "replace", "unlink", "rmdir"} <= set(operations)
    assert value["kept"] == ["step-000006", "step-000004"]  # the newest and the best


def test_kill_and_tear_at_every_operation(oracle, memory, stride):
    """Every point of every save, pointer and rotation: nothing is lost but the steps since the last save."""
    operations, expected = oracle
    for fault in every(operations, stride, kill=True, tear=True):
        folder = memory / f"{fault.kind}-{fault.at}"
        folder.mkdir()
        struck = run(lambda folder=folder: train(folder), fault, under=folder)
        assert struck.died, (fault, struck)
        whole = operations[: fault.at].count("rename")
        assert pointers_are_valid(folder / "checkpoints"), fault
        after = run(lambda folder=folder: train(folder), under=folder)
        assert after.code == 0, (fault, after.error)
        assert after.value["digest"] == expected["digest"], fault
        assert after.value["kept"] == expected["kept"], fault
        assert after.value["bad"] == [], fault
        assert leftovers(folder) == [], fault
        assert after.value["first"] > 0 or whole == 0, fault


def test_kill_while_a_damaged_checkpoint_is_put_aside(oracle, memory, stride):
    """The newest is bad, and the start that finds it so is killed too, at every operation."""
    operations, expected = oracle
    before = memory / "before"
    before.mkdir()
    run(lambda: train(before), Fault(len(operations) - 2, "kill"), under=before)
    assert (before / "checkpoints" / "step-000006").exists()
    (before / "checkpoints" / "step-000006" / "optimizer.json").write_text("{}")
    folder = shutil.copytree(before, memory / "clean")
    clean = run(lambda: train(folder), under=folder)
    assert (clean.value["first"], clean.value["bad"]) == (4, ["step-000006.bad"])
    for fault in every(clean.operations, stride, kill=True):
        folder = shutil.copytree(before, memory / f"kill-{fault.at}")
        assert run(lambda folder=folder: train(folder), fault, under=folder).died
        after = run(lambda folder=folder: train(folder), under=folder)
        assert after.code == 0, (fault, after.error)
        assert after.value["digest"] == expected["digest"], fault
        assert leftovers(folder) == [], fault


@pytest.mark.slow
def test_kill_at_fifty_random_moments(oracle, memory):
    """One folder, killed again and again while it trains; it gets there, and ends as the oracle."""
    _, expected = oracle
    moments = random.Random(0)
    for number in range(50):
        folder = memory / str(number // 5)
        run(lambda folder=folder: train(folder), under=folder, kill_after=moments.uniform(0, 0.25))
        assert pointers_are_valid(folder / "checkpoints")
    for folder in memory.iterdir():
        after = run(lambda folder=folder: train(folder), under=folder)
        assert after.value["digest"] == expected["digest"], after.error
        assert leftovers(folder) == []
