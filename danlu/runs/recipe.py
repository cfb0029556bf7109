"""Recipes by path or by the name of a shipped one."""

from collections.abc import Sequence
from pathlib import Path

from danlu.core.config import load, read_tree
from danlu.core.errors import UserError
from danlu.core.parts import did_you_mean
from danlu.data.files.find import nearest
from danlu.runs.folder import is_run_folder
from danlu.runs.train_run import TrainRun

SHIPPED = Path(__file__).parent.parent / "recipes"


def shipped() -> list[str]:
    """The names of the recipes that come with danlu."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def find(recipe: str) -> Path:
    """The file of a recipe: a path, a run's folder, or a shipped one's name."""
    path = Path(recipe).expanduser()
    if path.is_dir() and is_run_folder(path):
        return path / "run.yaml"
    if path.is_file():
        return path
    if recipe in shipped():
        return SHIPPED / f"{recipe}.yaml"
    hint = did_you_mean(recipe, shipped()) or nearest(path) or f"; shipped recipes: {', '.join(shipped())}"
    raise UserError(f"{recipe}: no such recipe file{hint}")


def load_recipe(recipe: str, overrides: Sequence[str] = ()) -> TrainRun:
    """A recipe with `key=value` overrides, resolved and checked."""
    path = find(recipe)
    return load(TrainRun, read_tree(path), overrides, origin=path.name if path.parent == SHIPPED else str(path))


def summary_of(name: str) -> str:
    """A shipped recipe's first comment line: what it is for."""
    return (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
