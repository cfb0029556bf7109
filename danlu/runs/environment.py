"""What a run ran on: versions, devices, threads, the commit; neither environment variables nor the command line."""

import os
import platform
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import torch

import danlu
from danlu.engine.manifest import versions


def environment() -> dict[str, Any]:
    """The facts that a person who repeats the run would ask for."""
    return {
        "time": time.strftime("%FT%T%z"),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "commit": commit(Path(danlu.__file__).parent),
        "versions": versions(),
        "devices": devices(),
        "cpu": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "memory_bytes": psutil.virtual_memory().total,
        },
    }


def devices() -> list[dict[str, Any]]:
    """The accelerators that this process sees."""
    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [{"name": device.name, "memory_bytes": device.total_memory} for device in found]


def commit(folder: Path) -> str | None:
    """The commit that a folder's files are of, with `+` when they were changed since; None outside git."""
    try:
        words = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        said = subprocess.run(words, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None
