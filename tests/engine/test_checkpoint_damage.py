"""Damage every file of a checkpoint in every way a disk knows: it is always seen, named and passed over."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from danlu.core.errors import CheckpointError
from danlu.engine import manifest
from danlu.engine.checkpoint import Checkpoints
from danlu.engine.checkpoint_folder import Checkpoint, Content

FILES = ("model.safetensors", "optimizer.safetensors", "cursor.json", "optimizer.json", "manifest.json")


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    """Checkpoints of steps 1 and 2."""
    store = Checkpoints(tmp_path, config={"seed": 1})
    for step in (1, 2):
        tensors = {"model": {"w": torch.randn(16)}, "optimizer": {"w.exp_avg": torch.randn(16)}}
        assert store.save(step, Content(tensors, {"cursor": {"row": step * 1000}, "optimizer": {"groups": []}}))
    return store


def assert_falls_back(store: Checkpoints, file: str) -> None:
    """The newest is passed over and `file` blamed; then everything is put back."""
    found = store.latest_valid()
    assert found is not None
    assert found.step == 1
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith(f"step-000002: {file}")
    (store.folder / "step-000002.bad").rename(store.folder / "step-000002")


@pytest.mark.parametrize("file", FILES)
def test_one_flipped_bit_is_always_seen(store, file):
    path = store.folder / "step-000002" / file
    whole = path.read_bytes()
    places = random.Random(file)
    for _ in range(20):
        torn = bytearray(whole)
        torn[places.randrange(len(whole))] ^= 1 << places.randrange(8)
        path.write_bytes(torn)
        assert_falls_back(store, file)
    path.write_bytes(whole)
    assert store.latest_valid().step == 2


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [truncate, empty, Path.unlink])
def test_a_torn_empty_or_missing_file_is_passed_over(store, file, damage: Callable[[Path], None]):
    damage(store.folder / "step-000002" / file)
    assert_falls_back(store, file)


def test_a_blank_changed_in_the_manifest_is_seen(store):
    path = store.folder / "step-000002" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"\n  ", b"\n\t ", 1))
    assert_falls_back(store, "manifest.json was changed")


def test_a_newer_schema_is_refused_and_left_alone(store, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(manifest, "SCHEMA", 2)
        path = store.save(3, Content({}, {}))
        facts = json.loads((path / "manifest.json").read_bytes())
        del facts["seal"]
        (path / "manifest.json").write_bytes(manifest._sealed(facts | {"schema": 2}))
    with pytest.raises(CheckpointError, match=r"schema 2.*install the newer one"):
        store.latest_valid()
    assert path.exists()


def test_size_is_enough_when_asked_but_misses_a_flip(store):
    path = store.folder / "step-000002" / "model.safetensors"
    flipped = bytearray(path.read_bytes())
    flipped[-1] ^= 1
    path.write_bytes(flipped)
    assert Checkpoint.open(path.parent, verify="size").step == 2
    truncate(path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has \d+ bytes, not"):
        Checkpoint.open(path.parent, verify="size")


def test_a_second_bad_one_of_a_step_gets_another_name(store):
    shutil.copytree(store.folder / "step-000002", store.folder / "step-000002.bad")
    empty(store.folder / "step-000002" / "cursor.json")
    assert store.latest_valid().step == 1
    assert (store.folder / "step-000002.bad-2").is_dir()


def test_a_save_over_a_damaged_step_replaces_it(store):
    empty(store.folder / "step-000002" / "cursor.json")
    store.save(2, Content({}, {"cursor": {"row": 7}}))
    assert store.latest_valid().state("cursor") == {"row": 7}
