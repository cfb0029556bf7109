"""The store of checkpoints: whole or absent, verified, rotated, never silently restarted."""

from pathlib import Path

import pytest
import torch

from danlu.core.errors import CheckpointError
from danlu.engine.checkpoint import Checkpoints
from danlu.engine.checkpoint_folder import Checkpoint, Content

CONFIG = {"optimizer": {"lr": 0.1}, "seed": 1}


def save(store: Checkpoints, step: int, **options) -> Path | None:
    return store.save(
        step, Content({"model": {"w": torch.full((8,), float(step))}}, {"cursor": {"row": step}}), **options
    )


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", config=CONFIG)


def names(store: Checkpoints) -> list[str]:
    return [path.name for path in store]


def test_what_is_saved_is_what_is_read(store):
    save(store, 3)
    found = store.latest_valid()
    assert (found.step, found.skipped) == (3, ())
    assert torch.equal(found.tensors("model")["w"], torch.full((8,), 3.0))
    assert found.state("cursor") == {"row": 3}
    assert found.manifest.versions["torch"] == torch.__version__


def test_nothing_saved_is_none(store):
    assert store.latest_valid() is None


def test_limit_keeps_the_newest_the_best_and_the_pinned(store):
    store.limit = 2
    save(store, 1, best=True)
    save(store, 2)
    (store.folder / "step-000002" / "pinned").touch()
    for step in (3, 4, 5):
        save(store, step)
    assert names(store) == ["step-000005", "step-000004", "step-000002", "step-000001"]
    assert store.pointer("best").name == "step-000001"
    assert store.pointer("latest").name == "step-000005"


def test_writers_add_files_under_the_manifest(store):
    def write(folder: Path) -> None:
        (folder / "adapter").mkdir()
        (folder / "adapter/a.json").write_text("{}")

    path = store.save(1, Content({}, {}, writers=[write]))
    assert list(Checkpoint.open(path).manifest.files) == ["adapter/a.json"]
    (path / "adapter/a.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"adapter/a.json was changed"):
        Checkpoint.open(path)


def test_all_bad_is_refused_now_and_later(store):
    (save(store, 1) / "manifest.json").unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"no checkpoint can be trusted.*step-000001") as refusal:
            store.latest_valid()
        assert refusal.value.exit_code == 7


def test_other_config_is_refused_with_its_differences(store):
    save(store, 1)
    changed = Checkpoints(store.folder, config={"optimizer": {"lr": 0.2}, "seed": 1})
    with pytest.raises(CheckpointError, match=r"optimizer.lr: 0.1 -> 0.2\n"):
        changed.latest_valid()
    assert changed.latest_valid(allow_config_change=True).step == 1
