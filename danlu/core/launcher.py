"""Which of a run's processes this is, in the words of whichever launcher started it."""

import os
import re
from collections.abc import Mapping, MutableMapping

from danlu.core.errors import UserError

PORT = 27633
"""where the machines of a run meet if nothing else is said"""
PORT_ALONE = 27643
"""where the processes of one machine meet"""
BY_DANLU = "DANLU_LAUNCHER"
"""set for processes that danlu's own launcher started: it tells their errors, and they end when it dies"""
LOST_OTHERS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "NCCL",
    "Connect error",
    "Timed out",
)
"""what torch says on a rank whose neighbours are gone"""
ECHO_SECONDS = 2.0
"""how long after the first stop signal another one is taken for the launcher's copy of it"""


def launched(env: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher started this process as one of its ranks."""
    return "RANK" in env and "WORLD_SIZE" in env


def rank_of(env: Mapping[str, str] = os.environ) -> int:
    """This process among all of the run."""
    return int(env.get("RANK", 0))


def again(env: Mapping[str, str] = os.environ) -> str:
    """What to add to a command so that it starts as many processes as this start has."""
    return f" --gpus {env['LOCAL_WORLD_SIZE']}" if BY_DANLU in env else ""


def has_lost_others(error: BaseException | None) -> bool:
    """Whether a rank failed only because it lost another one."""
    while error is not None:
        if isinstance(error, RuntimeError) and any(words in str(error) for words in LOST_OTHERS):
            return True
        error = error.__cause__ or error.__context__
    return False


def restarted(env: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher starts the run again after a crash."""
    return int(env.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def in_slurm_step(env: Mapping[str, str] = os.environ) -> bool:
    """Whether `srun` started this process; a batch script has a task number too, but no step and no siblings."""
    return "SLURM_PROCID" in env and (bool(env.get("SLURM_STEP_ID")) or env["SLURM_PROCID"] != "0")


def take_slurm(env: MutableMapping[str, str] = os.environ) -> None:
    """Say in torch's words which of several tasks `srun` started here: one task is one rank."""
    tasks = int(env.get("SLURM_STEP_NUM_TASKS") or env.get("SLURM_NTASKS") or 1)
    if launched(env) or tasks < 2 or not in_slurm_step(env):
        return
    env["RANK"], env["WORLD_SIZE"] = env["SLURM_PROCID"], str(tasks)
    env["LOCAL_RANK"] = env.get("SLURM_LOCALID", "0")
    per_node = env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE")
    if per_node:
        env.setdefault("LOCAL_WORLD_SIZE", str(tasks_of_node(per_node, int(env.get("SLURM_NODEID", 0)))))
    env.setdefault("MASTER_ADDR", first_host(slurm_nodes(env)))
    env.setdefault("MASTER_PORT", str(PORT))


def slurm_nodes(env: Mapping[str, str] = os.environ) -> str:
    """The hosts of this step, as Slurm writes them."""
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        if env.get(name):
            return env[name]
    raise UserError("SLURM_JOB_NODELIST is not set: say where rank 0 is with MASTER_ADDR=HOST")


def first_host(nodes: str) -> str:
    """`gpu03` of `gpu[03-07,9],cpu1`."""
    found = re.match(r"([^,\[\]]+)(?:\[(\w+)[^\]]*\]([^,\[\]]*))?", nodes.strip())
    if found is None:
        raise UserError(f"SLURM_JOB_NODELIST={nodes!r}: no host in it; say where rank 0 is with MASTER_ADDR=HOST")
    return "".join(part or "" for part in found.groups())


def tasks_of_node(per_node: str, node: int) -> int:
    """How many tasks a node has by Slurm's `4(x2),3`."""
    for part in per_node.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if found is None:
            break
        node -= int(found[2] or 1)
        if node < 0:
            return int(found[1])
    raise UserError(f"SLURM_TASKS_PER_NODE={per_node!r} does not say how many tasks this node has")


def address(master: str | None, *, alone: bool, env: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Host and port where all meet: what was said, else MASTER_ADDR and MASTER_PORT, else this machine."""
    said = master or env.get("MASTER_ADDR", "127.0.0.1")
    host, _, port = said.rpartition(":") if re.search(r"[^:]:\d+$|\]:\d+$", said) else (said, "", "")
    port = port or env.get("MASTER_PORT") or str(PORT_ALONE if alone else PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--master {said}: expected HOST or HOST:PORT, such as 10.0.0.1:{PORT}")
    return host.strip("[]"), int(port)
