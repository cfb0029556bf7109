"""Start a way's program in a process of its own, and collect what it says."""

import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from json import loads
from pathlib import Path
from typing import Any

from peers.workload import parser

BENCHMARKS = Path(__file__).resolve().parents[1]
TAIL = 14
"""lines that are shown of a program which failed"""


def answers_of(program: str, way: str, given: Namespace, *more: str) -> list[dict[str, Any]]:
    """All that a way's program told until it ended, failed (the end of what it wrote is shown) or ran out of time."""
    sites = [folder for peer, _, folder in (site.partition("=") for site in given.site) if peer == way.split()[0]]
    paths = [*sites, *os.environ.get("PYTHONPATH", "").split(os.pathsep), str(BENCHMARKS), str(BENCHMARKS.parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder) / "answers.jsonl", Path(folder) / "log"
        command = [
            sys.executable,
            "-m",
            f"peers.{program}",
            *passed(given),
            "--way",
            way,
            "--answer",
            str(answer),
            *more,
        ]
        began, code = time.perf_counter(), None
        with log.open("w") as writes:
            process = subprocess.Popen(command, env=environment, stdout=writes, stderr=subprocess.STDOUT)
            try:
                code = process.wait(given.limit)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                print(f"{way}: stopped after {given.limit:.0f} s", flush=True)
        text = log.read_text(errors="replace")
        lines = answer.read_text().splitlines() if answer.is_file() else []
    if code != 0:
        print(f"{way}: it ended with\n    " + "\n    ".join(text.splitlines()[-TAIL:]), flush=True)
    elif given.profile:
        print(text)
    return [loads(line) | {"seconds in all": round(time.perf_counter() - began)} for line in lines]


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
