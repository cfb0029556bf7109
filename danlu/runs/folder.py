"""The one truth about a run: a folder that can be read without danlu. The command line, board and tests read this."""

import json
import re
import shutil
from pathlib import Path

from danlu.core.errors import UserError
from danlu.core.files import write_atomic, write_json
from danlu.runs.environment import environment


class RunFolder:
    """Where everything in a run's folder is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_yaml = path / "run.yaml"
        """the resolved recipe; `danlu train run.yaml` repeats the run"""
        self.environment = path / "environment.json"
        """the machine and versions of the newest start, and of the `earlier` ones"""
        self.metrics = path / "metrics.jsonl"
        """one line for each step, evaluation, save and alert"""
        self.plot = path / "loss.png"
        self.samples = path / "samples.jsonl"
        """what the model wrote while it learned"""
        self.data_report = path / "data_report.json"
        """what was read, left out and cut, and why"""
        self.checkpoints = path / "checkpoints"
        self.bad_batches = path / "bad_batches"
        """what was skipped because its loss or gradient was not finite"""
        self.final = path / "final"
        """what was trained, ready to load"""
        self.shared = path / "shared"
        """what other processes read while the run lasts"""
        self.ranks = path / "ranks"
        """what each process is doing, while there are several"""
        self.report = path / "report.html"
        self.lock = path / "run.lock"

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def create(self, run_yaml: str) -> None:
        """Begin a run here; call it under the lock. A folder that already holds a run is never written over."""
        taken = [path.name for path in self._ours() if path.exists()]
        if taken:
            raise UserError(
                f"{self.path} already holds a run ({', '.join(taken)}). Go on with it: `danlu resume {self.path}`; "
                "or choose another folder"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self.record_environment()
        write_atomic(self.run_yaml, run_yaml)  # last: it is what makes a folder a run

    def forget(self) -> None:
        """Take `create` back: nothing was trained."""
        for path in (self.run_yaml, self.environment, self.data_report):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.ranks, ignore_errors=True)

    def record_environment(self) -> None:
        """Write environment.json for this start; what earlier starts wrote is kept in it."""
        earlier = []
        if self.environment.exists():
            newest = json.loads(self.environment.read_bytes())
            earlier = [*newest.pop("earlier", []), newest]
        write_json(self.environment, environment() | ({"earlier": earlier} if earlier else {}))

    @classmethod
    def fresh(cls, recipe: str, parent: Path = Path("runs")) -> "RunFolder":
        """`runs/RECIPE`, or `runs/RECIPE-2` and so on when that holds a run."""
        last = cls.latest(recipe, parent)
        number = 1 if last is None else _number(last.path.name, recipe) + 1
        while (path := parent / (recipe if number == 1 else f"{recipe}-{number}")).exists() and any(path.iterdir()):
            number += 1
        return cls(path)

    @classmethod
    def latest(cls, recipe: str, parent: Path = Path("runs")) -> "RunFolder | None":
        """The newest run of a recipe: the one with the highest number."""
        runs = [path for path in parent.glob("*") if _number(path.name, recipe) and is_run_folder(path)]
        return cls(max(runs, key=lambda path: _number(path.name, recipe))) if runs else None

    def _ours(self) -> list[Path]:
        return [self.run_yaml, self.metrics, self.checkpoints, self.final]


def is_run_folder(path: Path) -> bool:
    """Whether a folder holds a run."""
    return (path / "run.yaml").is_file()


def _number(name: str, recipe: str) -> int:
    """1 for `RECIPE`, 2 for `RECIPE-2`; 0 for the runs of other recipes."""
    if name == recipe:
        return 1
    found = re.fullmatch(re.escape(recipe) + r"-([1-9]\d*)", name)
    return int(found[1]) if found else 0
