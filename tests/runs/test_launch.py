"""`--gpus N` starts ranks that end together: who ended them is named once, and a crashed run goes on by itself."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from danlu.core.errors import UserError
from danlu.runs.launch import Launch
from danlu.runs.meeting import free_port
from tests.runs.launching import Launched, after_step, beat, until
from tests.runs.several import several
from tests.runs.small_run import SmallRun, curve, twice, write_rows

PLAIN = ("adapter={name: lora, rank: 4}", "hooks=[metrics_file]", "engine.save.every_steps=5")
ENDLESS = ("engine.epochs=300", "engine.evaluate.every_steps=1000")
TWO = Launch(2, wait_seconds=60)


@pytest.fixture
def words(tmp_path):
    """`words(folder, *settings)`: a recipe for a tiny model and a few rows."""

    def of(folder: Path, *settings: str) -> list[str]:
        small = SmallRun(tmp_path, (*PLAIN, *settings))
        write_rows(small.rows)
        return ["sft_lora", *small.words(folder)]

    return of


def node(number: int, port: int, **more) -> Launch:
    return Launch(1, 2, number, f"127.0.0.1:{port}", wait_seconds=60, **more)


def test_who_is_left_alone_names_the_dead_rank_and_saves(words, tmp_path):
    folder = tmp_path / "run"

    def kill(pids: list[int]) -> None:
        after_step(folder, 3)
        os.kill(pids[1], signal.SIGKILL)

    given = words(folder, *ENDLESS, "engine.save.every_steps=1000")
    assert several(2, given, meanwhile=kill, errors=tmp_path) == [9, -signal.SIGKILL]
    said, step = (tmp_path / "error-0.txt").read_text(), beat(folder, 0)["step"]
    assert f"rank 1 on {os.uname().nodename}" in said
    assert f"its process is gone. everything until step {step} is saved. `danlu resume" in said
    assert (folder / f"checkpoints/step-{step:06d}").is_dir()


@pytest.mark.slow
def test_a_killed_rank_is_named_and_the_run_goes_on_by_itself(words, tmp_path):
    folder = tmp_path / "run"
    given = words(folder, "engine.epochs=10", "engine.evaluate.every_steps=1000")
    started = Launched(tmp_path, given, Launch(2, max_restarts=1))
    _, pid = after_step(folder, 6)
    os.kill(pid, signal.SIGKILL)
    assert started.end() == 0, started.said
    assert f"rank 1 on {os.uname().nodename} (process {pid}), after step " in started.said
    assert "killed by SIGKILL" in started.said
    assert "starting again (1 of 1)" in started.said
    assert twice(folder) == []
    undisturbed = tmp_path / "undisturbed"
    SmallRun(tmp_path, (*PLAIN, *given[1:])).go(undisturbed, f"folder={undisturbed}")
    found, expected = curve(folder), curve(undisturbed)
    assert [line.split()[:2] for line in found] == [line.split()[:2] for line in expected]


def test_words_that_cannot_be_started(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="0 to 1"):
        Launch(1, nodes=2, node_rank=2).place({})
    with pytest.raises(UserError, match="started by a launcher already"):
        Launch(1).place({"RANK": "0", "WORLD_SIZE": "2"})


def test_the_seeds_scripts_defaults_and_a_task_of_slurm_for_each_machine():
    place = Launch(8, nodes=2, node_rank=1).place({})
    assert (place.host, place.port, place.node, place.nodes, place.gpus) == ("127.0.0.1", 27633, 1, 2, 8)
    env = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_NODELIST": "gpu[3-4]"}
    place = Launch(8).place(env)
    assert (place.host, place.port, place.node, place.nodes) == ("gpu3", 27633, 1, 2)


def test_two_nodes_on_one_host_form_one_group(tmp_path, words):
    given, port = words(tmp_path / "run"), free_port(0)
    nodes = [Launched(tmp_path, given, node(number, port), "doctor") for number in (0, 1)]
    assert [each.end() for each in nodes] == [0, 0], nodes[0].said + nodes[1].said
    for number, each in enumerate(nodes):
        assert f"master_addr 127.0.0.1, master_port {port}, nnodes 2, node_rank {number}, num_processes 2" in each.said
        assert "Waiting For Other Machines..." in each.said
    assert "all 2 ranks have the same code and packages, recipe and data, and see one folder" in nodes[0].said
    assert "bus bandwidth" in nodes[0].said


@pytest.mark.slow
def test_a_suspended_rank_is_named_and_what_was_learnt_is_saved(words, tmp_path):
    folder = tmp_path / "run"
    started = Launched(tmp_path, words(folder, *ENDLESS, "engine.ranks.hang_seconds=3"), TWO)
    _, pid = after_step(folder, 3)
    os.kill(pid, signal.SIGSTOP)
    assert started.end() == 9, started.said
    assert "rank 1 on" in started.said
    assert "its process is suspended (SIGSTOP)" in started.said
    assert "`danlu resume" in started.said
    assert not psutil.pid_exists(pid)
    step = beat(folder, 0)["step"]
    assert (folder / f"checkpoints/step-{step:06d}").is_dir()  # by rank 0 alone, as saves are due every five steps


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_stop_reaches_every_rank_once_and_all_is_saved(words, tmp_path, number, code):
    folder = tmp_path / "run"
    started = Launched(tmp_path, words(folder, *ENDLESS), TWO)
    after_step(folder, 2)
    os.kill(started.process.pid, number)
    assert started.end() == code, started.said
    assert started.said.count("saving, then stopping") == 1
    assert started.said.count("everything is saved") == 1
    assert f"`danlu resume {folder} --gpus 2` goes on." in started.said


@pytest.mark.slow
def test_ranks_save_and_end_when_their_launcher_is_killed(words, tmp_path):
    folder = tmp_path / "run"
    started = Launched(tmp_path, words(folder, *ENDLESS), TWO)
    pids = after_step(folder, 2)
    started.process.kill()
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert (folder / f"checkpoints/step-{beat(folder, 0)['step']:06d}").is_dir()


@pytest.mark.slow
def test_a_run_of_two_nodes_and_the_death_of_one(words, tmp_path):
    folder, port = tmp_path / "run", free_port(0)
    given = words(folder, *ENDLESS)
    nodes = [Launched(tmp_path, given, node(number, port)) for number in (0, 1)]
    pids = after_step(folder, 3)
    nodes[1].process.kill()
    os.kill(pids[1], signal.SIGKILL)
    assert nodes[0].end() == 9, nodes[0].said
    assert f"node 1 ({os.uname().nodename}) gives no sign of life: rank 1 on" in nodes[0].said
    assert "everything until step" in nodes[0].said


@pytest.mark.slow
def test_a_node_that_comes_back_takes_part_in_the_next_start(words, tmp_path):
    folder, port = tmp_path / "run", free_port(0)
    given = words(folder, "engine.epochs=40", "engine.evaluate.every_steps=1000")
    nodes = [Launched(tmp_path, given, node(number, port, max_restarts=1)) for number in (0, 1)]
    pids = after_step(folder, 6)
    nodes[1].process.kill()
    os.kill(pids[1], signal.SIGKILL)
    again = Launched(tmp_path, given, node(1, port, max_restarts=1))
    assert [nodes[0].end(), again.end()] == [0, 0], nodes[0].said + again.said
    assert "the run has begun without this machine" in again.said
    assert twice(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("settings", [["engine.stepz=1"], ["model.path=nowhere-at-all"]])
def test_an_error_is_told_once_and_not_tried_again(words, tmp_path, settings):
    started = Launched(tmp_path, [*words(tmp_path / "run"), *settings], Launch(2, max_restarts=3))
    assert started.end() == 2, started.said
    assert started.said.count("error: ") == 1
    assert "Traceback" not in started.said
    assert "starting again" not in started.said


@pytest.mark.slow
def test_torchrun_starts_the_same_run_and_a_suspended_rank_ends_it(words, tmp_path):
    folder = tmp_path / "run"
    given = words(folder, *ENDLESS, "engine.ranks.hang_seconds=3")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port(0)}"]
    with open(tmp_path / "said.txt", "w") as said:
        started = subprocess.Popen([*torchrun, "-m", "danlu", "train", *given], stdout=said, stderr=said)
        try:
            _, pid = after_step(folder, 3)
            os.kill(pid, signal.SIGSTOP)
            assert started.wait(90) != 0
        finally:
            started.kill()
    text = (tmp_path / "said.txt").read_text()
    assert "rank 1 on" in text
    assert "its process is suspended (SIGSTOP)" in text
