"""What a resumed run will not do: trust a damaged checkpoint, begin from scratch unasked, or mix two recipes."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from danlu.core.errors import CheckpointError, DataError, SetupError, UserError
from danlu.core.lock import Lock, started
from danlu.data import tokenise
from danlu.data.chunks import Work
from danlu.engine.checkpoint import Checkpoints
from danlu.engine.metrics import read_metrics
from danlu.objectives.pretrain import Pretrain
from danlu.runs.start import go_on
from tests.faults import Fault, run
from tests.runs.small_run import SmallRun, curve, write_rows

KEPT = ("engine.save.limit=null",)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> SmallRun:
    return SmallRun(tmp_path_factory.mktemp("home"), KEPT)


@pytest.fixture(scope="module")
def oracle(small) -> dict:
    return small.go(small.home / "oracle")


@pytest.fixture
def killed(small, oracle, tmp_path) -> Path:
    """A run that was killed in its sixth step, with checkpoints of steps 2 and 4; made once, then copied."""
    made = small.home / "killed"
    if not made.exists():
        assert run(lambda: dies_at(small, made, pack=13), under=small.home).died
        assert [path.name for path in Checkpoints(made / "checkpoints")] == ["step-000004", "step-000002"]
    return shutil.copytree(made, tmp_path / "run")


def dies_at(small: SmallRun, folder: Path, pack: int) -> None:
    loss, left = Pretrain.loss, iter(range(pack))

    def dies(*given):
        if next(left, None) is None:
            os.kill(os.getpid(), 9)
        return loss(*given)

    Pretrain.loss = dies  # type: ignore[method-assign]
    small.go(folder)


def same(found: dict, oracle: dict, *but: str) -> bool:
    return {k: v for k, v in found.items() if k not in but} == {k: v for k, v in oracle.items() if k not in but}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "missing": lambda path: path.unlink(),
}
FILES = (
    "masters.safetensors",
    "optimizer.safetensors",
    "optimizer_structure.json",
    "progress.json",
    "manifest.json",
    "adapter_model.safetensors",
)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param(name, damage, marks=() if at % 4 == number % 4 else pytest.mark.slow)
        for at, name in enumerate(FILES)
        for number, damage in enumerate(DAMAGE)
    ],
)
def test_a_damaged_checkpoint_is_named_and_passed_over(small, oracle, killed, caplog, name, damage):
    caplog.set_level(logging.INFO)
    DAMAGE[damage](killed / "checkpoints" / "step-000004" / name)
    found = small.go(killed)
    assert f"step-000004: {name}" in caplog.text
    assert "going on after step 2" in caplog.text
    assert same(found, oracle, "leftovers")
    assert found["leftovers"] == ["checkpoints/step-000004.bad"]


def test_when_all_are_damaged_nothing_is_trained(small, killed):
    for path in Checkpoints(killed / "checkpoints"):
        flip(path / "masters.safetensors")
    before = (killed / "metrics.jsonl").read_bytes()
    for _ in range(2):  # the second start finds them put aside, and must not begin from scratch either
        with pytest.raises(
            CheckpointError, match=r"(?=.*step-000004)(?=.*step-000002).*Nothing was trained"
        ) as refused:
            small.go(killed)
        assert refused.value.exit_code == 7
    assert (killed / "metrics.jsonl").read_bytes() == before


def test_other_settings_are_refused_with_their_differences(small, killed):
    before = (killed / "run.yaml").read_bytes()
    with pytest.raises(CheckpointError) as refused:
        small.go(killed, "engine.optimizer.lr=1e-4", "adapter.rank=8")
    assert "engine.optimizer.lr: 0.003 -> 0.0001" in str(refused.value)
    assert "adapter.rank: 16 -> 8" in str(refused.value)
    assert "--allow-config-change" in str(refused.value)
    assert (killed / "run.yaml").read_bytes() == before


def test_other_settings_go_on_when_they_are_meant(small, oracle, killed):
    found = small.go(killed, "engine.optimizer.lr=1e-4", allow_config_change=True)
    assert found["curve"][:4] == oracle["curve"][:4]
    assert found["curve"][4:] != oracle["curve"][4:]
    assert len(found["curve"]) == 6
    assert found["twice"] == []
    go_on(killed)  # the folder's own recipe is the new one: nothing is refused


def test_memory_speed_and_reports_may_change_freely(small, oracle, killed):
    more = (
        "engine.save.every_steps=1",
        "engine.gradient_checkpointing=full",
        "data.workers=2",
        "hooks=[metrics_file, plot]",
    )
    found = small.go(killed, *more)
    assert same(found, oracle)
    assert (killed / "loss.png").exists()


def test_changed_data_is_refused(small, killed):
    other = SmallRun(killed.parent, KEPT)
    write_rows(other.rows)
    text = other.rows.read_text()
    moved = f"data.sources={other.rows}"
    with pytest.raises(CheckpointError, match=r"data\.sources"):
        small.go(killed, moved)
    small.go(shutil.copytree(killed, killed.with_name("moved")), moved, allow_config_change=True)

    changed = text.replace("count to 7", "count to 8")
    other.rows.write_text(changed)
    shutil.copytree(small.home / "cache", other.home / "cache", dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match=r"tokens_sha256\.rows: '\w+' -> '\w+'"):
        small.go(killed, moved)
    other.rows.write_text(text + text.splitlines()[0] + "\n")
    with pytest.raises(DataError, match="18 rows now, 17 when"):
        small.go(killed, moved, allow_config_change=True)


def test_a_finished_run_stays_what_it_is(small, oracle, tmp_path):
    folder = shutil.copytree(small.home / "oracle", tmp_path / "finished")
    before = {path: path.stat().st_mtime_ns for path in (folder / "checkpoints").rglob("*.safetensors")}
    for _ in range(2):
        assert same(small.go(folder), oracle)
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "checkpoints").rglob("*.safetensors")}


def test_a_run_killed_before_its_first_checkpoint_begins_anew(small, oracle, tmp_path):
    folder = small.home / "young"
    assert run(lambda: dies_at(small, folder, pack=3), under=small.home).died
    assert [line["event"] for line in read_metrics(folder / "metrics.jsonl")] == ["start", "eval", "step"]
    assert same(small.go(folder), oracle)


def test_more_steps_continue_the_curve(small, tmp_path):
    """With a schedule that does not look at the end, a run that was prolonged is the long run."""
    short = (*KEPT, "engine.schedule={name: constant}", "engine.epochs=1", "engine.evaluate.every_steps=1")
    long = SmallRun(small.home, (*short, "engine.steps=8"))
    expected = long.go(tmp_path / "long")
    folder = tmp_path / "prolonged"
    SmallRun(small.home, (*short, "engine.steps=5")).go(folder)
    assert len(curve(folder)) == 5
    with pytest.raises(CheckpointError, match="engine.steps: 5 -> 8"):
        long.go(folder)
    assert same(long.go(folder, allow_config_change=True), expected)


def test_resuming_what_is_no_run(small, tmp_path):
    with pytest.raises(UserError, match="no run there"):
        go_on(tmp_path)


HOLD = """
import sys
from pathlib import Path
from danlu.core.lock import Lock
with Lock(Path(sys.argv[1])):
    print(1, flush=True)
    sys.stdin.read()
"""


def test_two_processes_never_train_one_run(small, killed):
    """The second says who is at it."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, killed / "run.lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"1\n"
    try:
        before = {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()}
        with pytest.raises(SetupError, match=rf"process {other.pid} .*kill {other.pid}") as refused:
            small.go(killed)
        assert refused.value.exit_code == 4
        assert before == {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()}
    finally:
        other.communicate()
    small.go(killed)


def test_a_lock_that_a_killed_run_left_is_taken_over(small, oracle, killed):
    (killed / "run.lock").write_text(json.dumps({"pid": 1, "started": "0", "host": "elsewhere", "since": 0.0}))
    assert same(small.go(killed), oracle)
    with Lock(killed / "run.lock"):
        pass


@pytest.mark.parametrize("at", [1, 9, 20])
def test_a_kill_while_the_tokens_are_written(small, oracle, tmp_path, monkeypatch, at):
    """The token cache is whole or absent, and the next start makes it again."""
    monkeypatch.setattr(tokenise, "CHUNK_ROWS", 4)
    fresh, folder = SmallRun(tmp_path, KEPT), tmp_path / "run"
    shutil.copy(small.rows, fresh.rows)
    assert run(lambda: fresh.go(folder), Fault(at, "kill"), under=tmp_path / "cache").died
    found = fresh.go(folder)
    assert same(found, oracle)
    assert [path for path in (tmp_path / "cache").rglob("*") if ".tmp-" in path.name] == []


def test_a_kill_in_the_middle_of_tokenising_leaves_no_worker(small, oracle, tmp_path, monkeypatch):
    """Killed with kill -9, workers and all that they made included."""
    monkeypatch.setattr(tokenise, "CHUNK_ROWS", 4)
    fresh, folder, pids = SmallRun(tmp_path, KEPT), tmp_path / "run", tmp_path / "pids"
    shutil.copy(small.rows, fresh.rows)
    pids.mkdir()
    call = Work.__call__

    def kills(work, rows):
        (pids / str(os.getpid())).touch()
        if any(row == 12 for (_, row), _ in rows):
            os.kill(os.getppid(), 9)
        return call(work, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Work, "__call__", kills)
        struck = run(lambda: fresh.go(folder, "data.workers=2"), under=tmp_path)
    assert struck.died
    workers = [int(path.name) for path in pids.iterdir()]
    assert len(workers) == 2
    end = time.monotonic() + 5
    while alive := [pid for pid in workers if started(pid)]:
        assert time.monotonic() < end, f"{alive} outlive their parent"
        time.sleep(0.05)
    assert same(fresh.go(folder, "data.workers=2"), oracle)
