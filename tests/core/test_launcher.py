"""Which rank a process is, by the variables of each launcher."""

import pytest

from danlu.core.errors import UserError
from danlu.core.launcher import address, first_host, has_lost_others, launched, restarted, take_slurm, tasks_of_node

SRUN = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_TASKS_PER_NODE": "4(x2)",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
    "SLURM_STEP_ID": "0",
}


def test_a_process_alone_has_no_launcher():
    assert not launched({})
    assert not restarted({})


def test_a_task_of_srun_is_a_rank():
    env = dict(SRUN)
    take_slurm(env)
    expected = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert env.items() >= (expected | {"MASTER_ADDR": "gpu07", "MASTER_PORT": "27633"}).items()


@pytest.mark.parametrize(
    "env",
    [
        SRUN | {"RANK": "0", "WORLD_SIZE": "2"},  # torchrun inside a job knows better
        SRUN | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"}
        | {"SLURM_PROCID": "0"},  # a batch script
        {},
    ],
)
def test_what_is_no_task_among_several_stays_as_it_is(env):
    before = dict(env)
    take_slurm(env)
    assert env == before


def test_a_task_without_hosts_says_what_to_set():
    with pytest.raises(UserError, match="MASTER_ADDR=HOST"):
        take_slurm({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu1", "gpu1"), ("gpu[03-07,9],cpu1", "gpu03"), ("a,b", "a"), ("n[1]-ib", "n1-ib"), ("rack1-n07", "rack1-n07")],
)
def test_the_first_host_of_a_list(nodes, first):
    assert first_host(nodes) == first


def test_tasks_of_each_node():
    assert [tasks_of_node("4(x2),3", node) for node in range(3)] == [4, 4, 3]
    with pytest.raises(UserError, match="SLURM_TASKS_PER_NODE"):
        tasks_of_node("4", 1)


def test_the_seeds_scripts_addresses():
    assert address(None, alone=False, env={}) == ("127.0.0.1", 27633)
    assert address(None, alone=True, env={}) == ("127.0.0.1", 27643)
    assert address(None, alone=False, env={"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}) == ("node1", 29500)
    assert address("node1", alone=False, env={"MASTER_PORT": "29500"}) == ("node1", 29500)
    assert address("[fe80::1]:1234", alone=False, env={}) == ("fe80::1", 1234)
    with pytest.raises(UserError, match="HOST:PORT"):
        address("node1:99999", alone=False, env={})


def test_an_error_that_follows_from_another_ranks_end():
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4711")
    error = ValueError("while saving")
    error.__cause__ = lost
    assert has_lost_others(error)
    assert not has_lost_others(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
