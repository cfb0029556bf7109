"""Data prepared ahead, by however many tasks, is what training would have made: the same bytes under the same key."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.core.config import load
from danlu.core.errors import DataError, SetupError, UserError
from danlu.data import tokenise
from danlu.data.prepared import share, whole_of
from danlu.data.shards import write_shards
from danlu.runs.prepare import Plan, prepare
from danlu.runs.train_run import TrainRun
from tests.faults import every, run

ROWS = [{"instruction": f"count {n}", "output": "" if n == 13 else "one two three " * (n % 7 + 1)} for n in range(40)]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """`recipe(cache, key=value…)`: a run on two sources, one of seven shards and one of one file."""
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("talk.jsonl").write_text('{"instruction": "q", "output": "answer"}\n' * 3)
    write_shards([Path("a.jsonl")], tmp_path / "alpaca", 6)

    def build(cache: str, *overrides: str) -> TrainRun:
        sources = {"alpaca": {"path": "alpaca"}, "talk": {"path": "talk.jsonl"}}
        data = {"sources": sources, "cache": cache, "workers": 1}
        return load(TrainRun, {"model": {"path": "builtin:tiny-llama"}, "data": data, "objective": "sft"}, overrides)

    return build


def bytes_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@given(count=st.integers(0, 50), tasks=st.integers(1, 60))
def test_the_shares_of_all_tasks_are_every_file_once_and_in_order(count, tasks):
    assert [at for rank in range(tasks) for at in share(count, rank, tasks)] == list(range(count))


@pytest.mark.parametrize(
    ("tasks", "settings"),
    [
        (1, ()),
        (3, ()),
        (9, ()),
        (3, ("data.documents=together", "data.pack_tokens=50")),
        (3, ("data.max_length=40", "data.too_long=split")),
        (3, ("data.sources.alpaca.max_rows=20",)),
        (3, ("data.sources.alpaca.columns={instruction: output, output: instruction}",)),
    ],
)
def test_any_number_of_tasks_makes_the_tokens_that_one_process_makes(tasks, settings, recipe, tmp_path, monkeypatch):
    alone = prepare(recipe("alone", *settings))
    plan = Plan.of(recipe("shared", *settings))
    for rank in reversed(range(tasks)):
        plan.tokenise(rank, tasks)
    monkeypatch.setattr(tokenise, "over", None)  # nothing is left to tokenise
    assert prepare(recipe("shared", *settings)) == alone
    assert bytes_under(tmp_path / "shared/tokens") == bytes_under(tmp_path / "alone/tokens")
    assert Plan.of(recipe("shared", *settings)).sources == []


def test_parts_that_leave_a_gap_are_not_taken_for_the_whole(recipe, tmp_path):
    plan = Plan.of(recipe("shared"))
    for rank in (0, 2):
        plan.tokenise(rank, 3)
    place = tmp_path / "shared/tokens" / plan.sources[0].key
    assert whole_of(place, 7) == []
    report = prepare(recipe("shared"))
    assert report.sources["alpaca"].rows_in == 40
    assert not (place / "parts").exists()


def test_a_file_that_changed_after_the_planning_is_refused(recipe):
    plan = Plan.of(recipe("shared", "data.trust_times=false"))
    Path("talk.jsonl").write_text('{"instruction": "q", "output": "another"}\n')
    with pytest.raises(DataError, match=r"talk\.jsonl: changed since the tasks were planned"):
        plan.tokenise(0, 1)
    assert not list(Path("shared/tokens").glob(f"{plan.sources[1].key}/*"))


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 97])
def test_a_kill_at_any_moment_leaves_no_half_of_it(stride, recipe, tmp_path):
    alone = prepare(recipe("alone"))

    def work(cache: str) -> list[str]:
        plan = Plan.of(recipe(cache))
        for rank in range(2):
            plan.tokenise(rank, 2)
        return list(prepare(recipe(cache)).lines())

    clean = run(lambda: work("clean"), under=tmp_path / "clean")
    assert clean.value == list(alone.lines()), clean.error
    for fault in every(clean.operations, stride, kill=True, tear=True):
        cache = f"{fault.kind}-{fault.at}"
        assert run(lambda cache=cache: work(cache), fault, under=tmp_path / cache).died, fault
        assert work(cache) == clean.value, fault
        for key in (tmp_path / "alone/tokens").iterdir():
            made = tmp_path / cache / "tokens" / key.name / "rows"
            assert bytes_under(made) == bytes_under(key / "rows"), fault


def test_datatrove_runs_the_tasks_here(recipe, tmp_path):
    cluster = pytest.importorskip("danlu.runs.cluster")
    alone = prepare(recipe("alone"))
    assert cluster.share_out(Plan.of(recipe("shared")), "local", 3, {"workers": 2})
    assert prepare(recipe("shared")) == alone
    assert bytes_under(tmp_path / "shared/tokens") == bytes_under(tmp_path / "alone/tokens")


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


OPTIONS = {"time": "01:00:00", "partition": "cpu"}


def test_slurm_gets_an_array_of_tasks_and_a_job_that_joins_them_after(recipe, tmp_path, monkeypatch):
    cluster = pytest.importorskip("danlu.runs.cluster")
    told = 'for last; do :; done; (echo "$@"; cat "$last") > jobs/$n; echo "Submitted batch job $n"'
    program(tmp_path / "bin/sbatch", f"n=$(($(ls jobs | wc -l) + 1)); {told}")
    (tmp_path / "jobs").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert not cluster.share_out(Plan.of(recipe("shared")), "slurm", 5, {**OPTIONS, "mem_per_cpu_gb": 7})
    said = [path.read_text() for path in sorted((tmp_path / "jobs").iterdir()) if "launch_pickled" in path.read_text()]
    assert ["--array=0-4" in said[0], "--partition=cpu" in said[0], "--mem-per-cpu=7G" in said[0]] == [True] * 3
    assert ["--array=0-0" in said[1], "--dependency=afterok:1" in said[1]] == [True] * 2


@pytest.mark.slow
def test_jobs_that_slurm_starts_make_the_same_tokens(recipe, tmp_path, monkeypatch):
    """A stand-in for Slurm that runs each job of the array at once, in a process of its own."""
    cluster = pytest.importorskip("danlu.runs.cluster")
    alone = prepare(recipe("alone"))
    program(tmp_path / "bin/srun", 'while [ "$1" != launch_pickled_pipeline ]; do shift; done; exec "$@"')
    program(tmp_path / "bin/scontrol", "echo localhost")
    each = "SLURM_ARRAY_TASK_ID=$i RUN_OFFSET=0 SLURM_NODELIST=localhost"
    program(
        tmp_path / "bin/sbatch",
        'for last; do :; done; end=$(sed -n "s/#SBATCH --array=0-//p" "$last"); '
        f'for i in $(seq 0 $end); do {each} bash "$last" >&2; done; echo "Submitted batch job 1"',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(tokenise.__file__).parents[2]))
    cluster.share_out(Plan.of(recipe("shared")), "slurm", 2, OPTIONS)
    assert not list((tmp_path / "shared").glob("tokens/*/parts"))
    assert bytes_under(tmp_path / "shared/tokens") == bytes_under(tmp_path / "alone/tokens")
    assert prepare(recipe("shared")) == alone


def test_what_an_executor_lacks_is_said(recipe, tmp_path, monkeypatch):
    cluster = pytest.importorskip("danlu.runs.cluster")
    plan = Plan.of(recipe("shared"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="no sbatch here"):
        cluster.share_out(plan, "slurm", 2, OPTIONS)
    with pytest.raises(
        UserError, match="--executor slurm: missing 2 required positional arguments: 'time' and 'partition'"
    ):
        cluster.share_out(plan, "slurm", 2, {})
    with pytest.raises(UserError, match="--executor local: got an unexpected keyword argument 'partition'"):
        cluster.share_out(plan, "local", 2, {"partition": "cpu"})
    with pytest.raises(UserError, match="at least 1"):
        cluster.share_out(plan, "local", 0, {})
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SetupError, match="needs another package: .*pip install ray"):
        cluster.share_out(plan, "ray", 2, {})
