"""Start or continue a training run from the words of a surface: which recipe, which folder, from where."""

from collections.abc import Callable, Sequence
from pathlib import Path

from danlu.core.config import load, read_tree
from danlu.core.errors import UserError
from danlu.core.launcher import restarted
from danlu.engine.engine import open_ranks
from danlu.runs.folder import RunFolder, is_run_folder
from danlu.runs.preflight import RollCall, compare, facts, see_folder
from danlu.runs.recipe import find, load_recipe
from danlu.runs.train import train
from danlu.runs.train_run import TrainRun


def start(
    recipe: str, overrides: Sequence[str] = (), *, resume: bool = False, allow_config_change: bool = False
) -> Path:
    """Train a recipe in a folder of its own, or go on with its newest run."""
    run = load_recipe(recipe, overrides)
    folder = agreed(run, lambda: folder_of(run, find(recipe), resume))
    resume = resume or (restarted() and is_run_folder(folder.path))
    return train(run, folder, resume=resume, allow_config_change=allow_config_change)


def go_on(folder: Path) -> Path:
    """Go on with the run in a folder, by the recipe that it keeps."""
    return train(*folder_to_resume(folder), resume=True)


def folder_to_resume(folder: Path) -> tuple[TrainRun, RunFolder]:
    """The run in a folder, as it was begun."""
    if not is_run_folder(folder):
        raise UserError(f"{folder}: no run there (a run's folder holds run.yaml)")
    run = load(TrainRun, read_tree(folder / "run.yaml"), origin=str(folder / "run.yaml"))
    return run, RunFolder(folder)


def agreed(run: TrainRun, choose: Callable[[], RunFolder]) -> RunFolder:
    """One folder for all processes: what the first one chooses."""
    ranks = open_ranks(run.engine)
    if ranks.count == 1:
        return choose()
    call = RollCall.of(ranks)
    if run.engine.ranks.check:
        compare(call, facts(run, hashed=False))
    folder = RunFolder(Path(call.told("folder", lambda: str(choose()))))
    if run.engine.ranks.check:
        see_folder(call, folder.ranks)
    return folder


def folder_of(run: TrainRun, recipe: Path, resume: bool) -> RunFolder:
    """The folder that the recipe names, or runs/NAME."""
    if run.folder is not None:
        return RunFolder(run.folder)
    if recipe.name == "run.yaml" and resume and is_run_folder(recipe.parent):
        return RunFolder(recipe.parent)
    name = recipe.parent.name if recipe.name == "run.yaml" else recipe.stem
    if not resume and not restarted():
        return RunFolder.fresh(name)
    found = RunFolder.latest(name)
    if found is None and not resume:
        return RunFolder.fresh(name)
    if found is None:
        raise UserError(f"runs/{name}: no run to resume; leave --resume out to begin one")
    return found
