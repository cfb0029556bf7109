"""Faults: run work in a forked child that is killed, or refused, at any one of its file operations.

    clean = run(work, under=folder)                  # clean.operations: ["open", "write", "fsync", "rename", ...]
    for fault in every(clean.operations, kill=True, tear=True):
        struck = run(work, fault, under=folder)      # the child died at that operation: struck.died
        after = run(work, under=folder)              # the next start; after.value is what `work` returned

`work` takes nothing and returns JSON. Only operations on paths inside `under` are counted, so a whole training run can
be struck as easily as one save. Kinds of fault, at operation number `at` (from 0):

    kill   kill -9 before the operation
    tear   kill -9 after half of it: half of the bytes are written (only a `write` or a `save` can be torn)
    full   the operation fails with "no space left on device", once; `lasting=True` makes all later ones fail too
    denied the same with "read-only file system"

`run(work, under=folder, kill_after=0.3)` kills at a moment instead.

The child is forked after everything is imported: a case costs about 50 ms. Call `work` once in the parent first, or
every child pays for what is imported at the first step (2 s for a torch optimiser). In the shell, `FAULT=kill:12
python ...` with `install_from_environment(under)` strikes a process that was started in the usual way.
"""

import builtins
import errno
import io
import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from safetensors import SafetensorError

Kind = Literal["kill", "tear", "full", "denied"]
ERRNO = {"full": errno.ENOSPC, "denied": errno.EROFS}
TEARABLE = ("write", "save")
CALLS = ("open", "fsync", "rename", "replace", "mkdir", "unlink", "remove", "rmdir", "link", "symlink", "chmod")


@dataclass(frozen=True)
class Fault:
    """What happens at which operation."""

    at: int
    kind: Kind
    lasting: bool = False

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """`kill:12`"""
        kind, _, at = text.partition(":")
        return cls(int(at), kind)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Outcome:
    """How a child ended: `code` is its exit status, negative for a signal, as in subprocess."""

    code: int
    operations: list[str] = field(default_factory=list)
    value: Any = None
    error: str = ""

    @property
    def died(self) -> bool:
        """Whether it was killed."""
        return self.code == -signal.SIGKILL


def every(
    operations: list[str], stride: int = 1, *, kill: bool = False, tear: bool = False, kinds: tuple[Kind, ...] = ()
) -> Iterator[Fault]:
    """Every fault of these kinds that such a list of operations can meet, or every `stride`-th."""
    wanted: tuple[Kind, ...] = (*(("kill",) if kill else ()), *(("tear",) if tear else ()), *kinds)
    possible = [
        Fault(at, kind) for at, name in enumerate(operations) for kind in wanted if kind != "tear" or name in TEARABLE
    ]
    yield from possible[::stride]


def run(
    work: Callable[[], Any], fault: Fault | None = None, *, under: Path, kill_after: float | None = None
) -> Outcome:
    """Run `work` in a child, perhaps with a fault or for some seconds only, and wait for its end."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _work_and_exit(work, fault, under, theirs)
    os.close(theirs)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with open(ours, "rb") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Outcome(code, **(json.loads(said) if said else {}))


def install_from_environment(under: Path) -> None:
    """Strike this process as the variable FAULT says."""
    if "FAULT" in os.environ:
        Injector(under, Fault.parse(os.environ["FAULT"])).install()


def _work_and_exit(work: Callable[[], Any], fault: Fault | None, under: Path, pipe: int) -> None:
    code, said = 1, {}
    injector = Injector(under, fault)
    try:
        injector.install()
        said["value"] = work()
        code = 0
    except BaseException as error:
        said["error"] = "".join(traceback.format_exception(error))
        code = getattr(error, "exit_code", 1)
    finally:
        said["operations"] = injector.operations
        os.write(pipe, json.dumps(said).encode())
        os._exit(code)


class Injector:
    """Counts this process's file operations under a folder, and strikes at one of them."""

    def __init__(self, under: Path, fault: Fault | None) -> None:
        self.under, self.fault = str(under.resolve()), fault
        self.operations: list[str] = []

    def install(self) -> None:
        """Patch the calls for the rest of this process's life."""
        for name in CALLS:
            setattr(os, name, self._counted(name, getattr(os, name)))
        builtins.open = io.open = self._opened(builtins.open)
        safetensors.torch.serialize_file = self._saved(safetensors.torch.serialize_file)

    def strike(self, name: str, half: Callable[[], Any] | None = None) -> None:
        """Count an operation that is about to happen, and let the fault happen instead if it is this one."""
        number = len(self.operations)
        self.operations.append(name)
        fault = self.fault
        if fault is None or number < fault.at or (number > fault.at and not fault.lasting):
            return
        if fault.kind in ERRNO:
            number = ERRNO[fault.kind]
            words = f"I/O error: {os.strerror(number)} (os error {number})"
            raise SafetensorError(words) if name == "save" else OSError(number, os.strerror(number))
        if fault.kind == "tear" and half is not None:
            half()
        os.kill(os.getpid(), signal.SIGKILL)

    def _is_ours(self, path: Any) -> bool:
        if isinstance(path, int):
            path = f"/proc/self/fd/{path}"
        return os.path.realpath(path).startswith(self.under)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(path: Any, *rest: Any, **options: Any) -> Any:
            # shutil.rmtree names files relative to a folder it holds open
            if self._is_ours(path if options.get("dir_fd") is None else options["dir_fd"]):
                self.strike(name)
            return call(path, *rest, **options)

        return counted

    def _opened(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            writes = set(mode) & set("wax+")
            if not writes or isinstance(path, int) or not self._is_ours(path):
                return call(path, mode, *rest, **options)
            self.strike("open")
            return _Written(call(path, mode, *rest, **options), self)

        return opened

    def _saved(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def saved(tensors: Any, path: Any, **options: Any) -> Any:
            def half() -> None:
                call(tensors, path, **options)
                os.truncate(path, os.path.getsize(path) // 2)

            if self._is_ours(path):
                self.strike("save", half)
            return call(tensors, path, **options)

        return saved


class _Written:
    """An open file whose writes are counted."""

    def __init__(self, file: Any, injector: Injector) -> None:
        self._file, self._injector = file, injector

    def write(self, content: Any) -> Any:
        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        self._injector.strike("write", half)
        return self._file.write(content)

    def __enter__(self) -> "_Written":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
