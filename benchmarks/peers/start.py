"""Start a way's program in a process of its own, and collect what it says."""

import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from json import loads
from pathlib import Path
from typing import Any

from peers.workload import parser

BENCHMARKS = Path(__file__).resolve().parents[1]
TAIL = 14
"""lines that are shown of a program which failed"""


def answers_of(program: str, way: str, given: Namespace, *more: str) -> Iterator[dict[str, Any]]:
    """What a way's program tells, as it comes, until it ends, fails (its log's end is shown) or runs out of time."""
    sites = [folder for peer, _, folder in (site.partition("=") for site in given.site) if peer == way.split()[0]]
    paths = [*sites, *os.environ.get("PYTHONPATH", "").split(os.pathsep), str(BENCHMARKS), str(BENCHMARKS.parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder) / "answers.jsonl", Path(folder) / "log"
        answer.touch()
        command = [sys.executable, "-m", f"peers.{program}", *passed(given), "--way", way, *more]
        began = time.perf_counter()
        with log.open("w") as writes, answer.open() as reads:
            command += ["--answer", str(answer)]
            process = subprocess.Popen(command, env=environment, stdout=writes, stderr=subprocess.STDOUT)
            try:
                ended = False
                while not ended:
                    ended = process.poll() is not None
                    for line in reads.read().splitlines():
                        yield loads(line) | {"seconds in all": round(time.perf_counter() - began)}
                    if time.perf_counter() - began > given.limit:
                        print(f"{way}: stopped after {given.limit:.0f} s", flush=True)
                        break
                    time.sleep(0 if ended else 0.2)
            finally:
                process.kill()
                code = process.wait()
        lines = log.read_text(errors="replace").splitlines()
    if code != 0:
        print(f"{way}: it ended with\n    " + "\n    ".join(lines[-TAIL:]), flush=True)
    elif given.profile and way.startswith("danlu"):
        print("\n".join(lines), flush=True)


def passed(given: Namespace) -> list[str]:
    """The arguments that a way's program understands too."""
    flags = []
    for action in parser(None)._actions:
        value = getattr(given, action.dest, None)
        if action.dest in ("help", "way", "answer") or value is None or value is False:
            continue
        flags += [action.option_strings[0]] if value is True else [action.option_strings[0], str(value)]
    return flags


def starting(description: str | None) -> Any:
    """A parser for those who start programs."""
    asked = parser(description)
    asked.add_argument("--site", action="append", default=[], metavar="PEER=FOLDER", help="a peer's own packages")
    asked.add_argument("--limit", type=float, default=240, help="seconds that a way may take")
    return asked
