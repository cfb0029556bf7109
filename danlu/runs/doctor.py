"""Is this machine ready for a run, and are all ranks of it ready to work together?"""

import os
import socket
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from rich.text import Text

from danlu.core.cache_folder import cache_folder
from danlu.core.devices import device_name
from danlu.core.errors import UserError
from danlu.core.launcher import launched
from danlu.core.optional import extras
from danlu.engine.manifest import versions
from danlu.runs.folder import RunFolder
from danlu.runs.preflight import RollCall, compare, facts, free_bytes, see_folder
from danlu.runs.recipe import find, load_recipe
from danlu.runs.start import folder_of
from danlu.runs.train_run import TrainRun

GIB = 2**30
LITTLE = 10 * GIB
"""free space under which a checkpoint of a large model may not fit"""
SIZES = {"cpu": (2**10, 2**20, 2**24), "cuda": (2**10, 2**20, 2**24, 2**28)}
"""bytes of the sums that are timed"""
SECONDS = 0.5
"""about so long each is repeated"""


def doctor(
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    *,
    launch: bool = False,
    wait_seconds: float = 900.0,
    console: Console | None = None,
) -> None:
    """Print what there is; with `launch`, meet the other ranks, and raise what keeps them from working together."""
    console = console or Console()
    run = load_recipe(recipe, overrides) if recipe else None
    folder = folder_of(run, find(recipe), resume=False) if run and recipe else None
    if not launch:
        console.print(here(folder))
        return
    if not launched():
        raise UserError("doctor --launch: say --gpus N, or start it as the run will be: torchrun … -m danlu doctor …")
    together(RollCall.meet(wait_seconds), run, folder, console)


def here(folder: RunFolder | None) -> Table:
    """This machine."""
    drawn = Table("", "", box=None, show_header=False)
    for name, value in lines(folder):
        drawn.add_row(Text(name), Text(value))  # no markup: an extra is written danlu[web]
    return drawn


def lines(folder: RunFolder | None) -> list[tuple[str, str]]:
    """What there is, each with what it is called."""
    found = [("host", socket.gethostname()), ("python", sys.executable)]
    found += [(name, number) for name, number in versions().items()]
    found += [(f"GPU {number}", gpu_line(number)) for number in range(torch.cuda.device_count())]
    memory = psutil.virtual_memory()
    found += [
        ("processor", f"{os.cpu_count()} cores, {device_name(torch.device('cpu'))}, {torch.get_num_threads()} threads"),
        ("memory", f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"),
        ("cache", disk_line(cache_folder())),
        ("run folder", disk_line(folder.path if folder else Path("runs"))),
    ]
    missing = missing_extras()
    return found + [(f"danlu[{extra}]", f"not here: {', '.join(names)}") for extra, names in missing.items()]


def gpu_line(number: int) -> str:
    """A GPU's name and memory."""
    free, total = torch.cuda.mem_get_info(number)
    return f"{torch.cuda.get_device_name(number)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"


def disk_line(folder: Path) -> str:
    """Free space, and whether it is little."""
    free = free_bytes(folder.absolute())
    warning = "; LITTLE: checkpoints may not fit" if free < LITTLE else ""
    return f"{folder}: {free / GIB:.1f} GiB free{warning}"


def missing_extras() -> dict[str, list[str]]:
    """Optional packages that are not installed, by the extra that installs them."""
    found: dict[str, list[str]] = {}
    try:
        known = extras(requires("danlu") or ())
    except PackageNotFoundError:  # a source tree that was never installed
        return found
    for package, extra in known.items():
        try:
            version(package)
        except PackageNotFoundError:
            found.setdefault(extra, []).append(package)
    return found


def together(call: RollCall, run: TrainRun | None, folder: RunFolder | None, console: Console) -> None:
    """All ranks: who is there, what they have, how fast they add."""
    cpu = (run is not None and run.engine.device == "cpu") or not torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cpu") if cpu else torch.device("cuda", local)
    present = call.exchange("who", who(device, folder))
    speak = call.rank == 0
    if speak:
        console.print(roll(present))
    compare(call, facts(run, hashed=True))
    if folder is not None:
        chosen = Path(call.told("folder", lambda: str(folder.path.absolute())))
        see_folder(call, chosen / "ranks")
    if speak:
        what = "code and packages" + (", recipe and data" if run else "")
        console.print(f"all {call.count} ranks have the same {what}" + (", and see one folder" if folder else ""))
    timings = bandwidth(call, device)
    if speak:
        console.print(speeds(timings, call.count))


def who(device: torch.device, folder: RunFolder | None) -> dict[str, Any]:
    """This rank, for the others."""
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"rank {os.environ.get('RANK')}: no GPU {device.index} on {socket.gethostname()}")
    memory = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": device_name(device),
        "memory": memory,
        "cache": free_bytes(cache_folder()),
        "disk": free_bytes((folder.path if folder else Path("runs")).absolute()),
    }


def roll(present: list[dict[str, Any]]) -> Table:
    """Who is there."""
    drawn = Table("rank", "host", "process", "device", "memory free", "cache disk", "run disk")
    for rank, each in enumerate(present):
        sizes = [f"{each[key] / GIB:.1f} GiB" for key in ("memory", "cache", "disk")]
        drawn.add_row(str(rank), each["host"], str(each["pid"]), each["device"], *sizes)
    return drawn


def bandwidth(call: RollCall, device: torch.device) -> list[tuple[int, float]]:
    """Bytes and seconds of one sum over all ranks, for a few sizes."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    wait = timedelta(seconds=call.wait_seconds)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=call.store, rank=call.rank, world_size=call.count, timeout=wait)
    try:
        return [(size, seconds_of(size, device)) for size in SIZES[device.type]]
    finally:
        call.exchange("measured", call.rank)  # nobody leaves while another still adds
        dist.destroy_process_group()


def seconds_of(size: int, device: torch.device) -> float:
    """One sum, on the mean of as many as rank 0 finds time for."""
    values = torch.ones(size // 4, device=device)
    repeats = torch.ones(1, device=device)
    for _ in range(2):  # the first builds connections; the second says how often
        started = time.perf_counter()
        dist.all_reduce(values.fill_(1.0))
        finish(device)
        repeats.fill_(max(1.0, min(100.0, SECONDS / (time.perf_counter() - started))))
    dist.broadcast(repeats, 0)
    count = int(repeats.item())
    started = time.perf_counter()
    for _ in range(count):
        dist.all_reduce(values.fill_(1.0))
    finish(device)
    return (time.perf_counter() - started) / count


def finish(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def speeds(timings: list[tuple[int, float]], count: int) -> Table:
    """Bus bandwidth as NCCL's tests count it: 2 (n - 1) / n of the bytes cross each rank's link."""
    drawn = Table("all-reduce of", "takes", "bus bandwidth")
    for size, seconds in timings:
        speed = 2 * (count - 1) / count * size / seconds / 1e9
        name = f"{size / 2**20:g} MiB" if size >= 2**20 else f"{size // 2**10} KiB"
        drawn.add_row(name, f"{seconds * 1e3:.3f} ms", f"{speed:.2f} GB/s")
    return drawn
