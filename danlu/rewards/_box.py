"""Run a program that nobody has read: in a process of its own, with limits and little of the machine (`_jail.py`)."""

import json
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from danlu.core.errors import SetupError
from danlu.rewards import _jail

NOBODY = 65534
MB = 2**20
REFUSAL = 2000
"""characters of an error that are read"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may take: seconds of the clock, and of each of its processes memory; all bytes that it writes."""

    seconds: float
    memory_mb: int
    written_mb: int
    processes: int

    def of_a_process(self) -> dict[str, int]:
        """As the kernel knows them."""
        return {
            "CPU": math.ceil(self.seconds),
            "AS": self.memory_mb * MB,
            "FSIZE": self.written_mb * MB,
            "NOFILE": 64,
            "NPROC": self.processes,
            "CORE": 0,
        }


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended (None: it ran out of time), what it printed, and what it told through its own channel."""

    code: int | None
    printed: bytes
    told: bytes
    problem: str


def run(files: dict[str, str], command: list[str], limits: Limits, *, given: str = "", required: bool = True) -> Ran:
    """Run Python on some files, which lie where `{folder}` is in the command; `{told}` is the channel's number.

    Where doors are `required` to be shut and the kernel cannot, nothing runs and there is a `SetupError`.
    """
    user = other_user()
    with tempfile.TemporaryDirectory(prefix="danlu-code-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        for part in ("code", "root", "work"):
            (folder / part).mkdir()
            if user is not None:
                os.chown(folder / part, user, user)
        with (
            tempfile.TemporaryFile() as printed,
            tempfile.TemporaryFile() as told,
            tempfile.TemporaryFile() as problem,
            tempfile.TemporaryFile() as asked,
        ):
            marks = {"{folder}": str(folder / "code"), "{told}": str(told.fileno())}
            for path, text in files.items():
                (folder / "code" / path).write_text(text, "utf-8", errors="surrogatepass")
            asked.write(given.encode(errors="surrogatepass"))
            asked.seek(0)
            plan = {
                "command": [sys.executable, "-I", "-X", "utf8", *(filled(word, marks) for word in command)],
                "reads": readable(folder / "code"),
                "root": str(folder / "root"),
                "work": str(folder / "work"),
                "space": limits.written_mb * MB,
                "limits": limits.of_a_process(),
                "user": user,
                "required": required,
            }
            code = ended(plan, limits.seconds, told.fileno(), stdin=asked, stdout=printed, stderr=problem)
            ran = Ran(code, whole(printed), whole(told), whole(problem).decode(errors="replace")[-REFUSAL:])
    if code == _jail.REFUSED and required:
        raise SetupError(ran.problem.strip())
    return ran


def ended(plan: dict[str, Any], seconds: float, told: int, **streams: Any) -> int | None:
    """Start a jail and wait for its end; nothing that it began is left."""
    words = [sys.executable, "-I", "-S", _jail.__file__, json.dumps(plan)]
    process = subprocess.Popen(words, env={}, cwd="/", pass_fds=[told], start_new_session=True, **streams)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def whole(file: IO[bytes]) -> bytes:
    """What was written into a file that another process writes."""
    file.seek(0)
    return file.read()


def filled(text: str, marks: dict[str, str]) -> str:
    """A text with values in place of their names."""
    for name, value in marks.items():
        text = text.replace(name, value)
    return text


def readable(code: Path) -> list[str]:
    """What a program may read: Python, the system's libraries, and its own files; none of them twice."""
    wanted = [*_jail.SYSTEM, sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable)), str(code)]
    wanted += [os.path.realpath(path) for path in wanted]  # a link is nothing without what it leads to
    found: list[str] = []
    for path in sorted({os.path.abspath(path) for path in wanted if os.path.exists(path)}, key=len):
        if not any(path.startswith(f"{other}/") for other in found):
            found.append(path)
    return found


def other_user() -> int | None:
    """Root runs each program as a user of its own, or as nobody where a container has no more users."""
    if os.getuid():
        return None
    everybody = Path("/proc/self/uid_map")
    has_all = everybody.is_file() and everybody.read_text().split() == ["0", "0", str(2**32 - 1)]
    return 10**9 + secrets.randbelow(10**9) if has_all else NOBODY
