"""A disk that is full, read-only or too small never stops the training and never shows half a checkpoint."""

import errno
import resource
import subprocess
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from danlu.engine import checkpoint
from danlu.engine.checkpoint import Checkpoints
from danlu.engine.checkpoint_folder import Checkpoint, Content
from tests.faults import Fault, every, run


def save(store: Checkpoints, step: int, floats: int = 8) -> Path | None:
    return store.save(step, Content({"model": {"w": torch.full((floats,), float(step))}}, {"cursor": {"row": step}}))


def whole(store: Checkpoints) -> list[int]:
    """Every visible checkpoint, all of which must verify."""
    return [Checkpoint.open(path).step for path in store]


def three_saves(folder: Path) -> dict:
    store = Checkpoints(folder / "checkpoints", limit=2)
    saved = [save(store, step) is not None for step in (1, 2, 3)]
    return {"saved": saved, "whole": whole(store), "failures": store.failures}


@pytest.fixture
def operations(memory: Path) -> list[str]:
    return run(lambda: three_saves(memory / "clean"), under=memory).operations


def test_full_or_read_only_for_one_operation(operations, memory, stride):
    """A save either works at the second try or is missed; the next one works."""
    for fault in every(operations, stride, kinds=("full", "denied")):
        folder = memory / f"{fault.kind}-{fault.at}"
        folder.mkdir()
        outcome = run(lambda folder=folder: three_saves(folder), fault, under=folder)
        assert outcome.code == 0, (fault, outcome.error)
        assert outcome.value["saved"].count(False) <= 1, fault
        assert len(outcome.value["whole"]) >= 1, fault


def test_full_from_some_operation_on(operations, memory, stride):
    for at in range(0, len(operations), stride):
        folder = memory / str(at)
        folder.mkdir()
        outcome = run(lambda folder=folder: three_saves(folder), Fault(at, "full", lasting=True), under=folder)
        assert outcome.code == 0, (at, outcome.error)
        after = run(lambda folder=folder: whole(Checkpoints(folder / "checkpoints")), under=folder)
        assert after.code == 0, (at, after.error)


def test_a_real_limit_on_file_size(tmp_path, caplog):
    """The kernel refuses at the write, in safetensors' own code."""

    def work() -> list:
        store = Checkpoints(tmp_path)
        first = save(store, 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        second = save(store, 2, floats=100_000)
        return [str(first), second, store.failures, whole(store), sorted(path.name for path in tmp_path.iterdir())]

    outcome = run(work, under=tmp_path)
    assert outcome.value == [str(tmp_path / "step-000001"), None, 1, [1], ["latest", "step-000001"]], outcome.error


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_real_full_disk(small_disk):
    """Three checkpoints of 80 kB do not fit on 256 kB with their pointers and manifests: the oldest makes room."""
    store = Checkpoints(small_disk)
    assert [save(store, step, floats=20_000) is not None for step in (1, 2, 3)] == [True] * 3
    assert 3 in whole(store)
    assert save(store, 4, floats=100_000) is None
    assert store.failures == 1
    assert 3 in whole(store)
    assert save(store, 5, floats=20_000) is not None
    assert store.failures == 0


def test_room_is_made_before_a_save_when_little_is_left(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        save(store, step)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: namedtuple("usage", "free")(0))
    save(store, 4)
    assert whole(store) == [4, 3]


def test_the_oldest_stays_when_the_newest_cannot_be_trusted(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path)
    for step in (1, 2):
        save(store, step)
    (tmp_path / "step-000002" / "cursor.json").write_text("")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: namedtuple("usage", "free")(0))
    save(store, 3)
    assert whole(store) == [3, 1]


def test_a_failed_save_is_said_and_counted(tmp_path, caplog):
    def refuse(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    store = Checkpoints(tmp_path)
    for failures in (1, 2):
        assert store.save(1, Content({}, {}, writers=[refuse])) is None
        assert store.failures == failures
    assert "step-000001 WAS NOT SAVED ([Errno 5] Input/output error)" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_a_writer_is_not_taken_for_the_disk(tmp_path):
    def mistaken(folder: Path) -> None:
        raise KeyError("weight")

    with pytest.raises(KeyError):
        Checkpoints(tmp_path).save(1, Content({}, {}, writers=[mistaken]))
    assert list(tmp_path.iterdir()) == []
