"""The most memory that a step took: of the GPU, and of the host beside what was taken before."""

import gc
import resource
import time
from typing import Any

import psutil
import torch
from peers.workload import forget_peak, wait

GIB = 2**30


class Gauge:
    """`begin`, a step, `end`."""

    def __init__(self) -> None:
        self.host = psutil.virtual_memory().used

    def begin(self) -> None:
        """Forget what was."""
        gc.collect()
        forget_peak()
        self.began = time.perf_counter()

    def end(self, way: str, tokens: int, loss: float) -> dict[str, Any]:
        """What the step took; on a processor, where it is the same memory, the most that the process ever held."""
        wait()
        memory = psutil.virtual_memory()
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else most_held()
        card = torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else memory.total
        return {
            "way": way, "tokens": tokens, "peak GiB": peak / GIB, "card GiB": card / GIB, "loss": loss,
            "host GiB": (memory.used - self.host) / GIB, "host has GiB": memory.total / GIB,
            "seconds": time.perf_counter() - self.began,
        }  # fmt: skip


def most_held() -> int:
    """Bytes that this process ever held at once."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
