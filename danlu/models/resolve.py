"""Where a model lies: a folder, a run, a checkpoint, `builtin:NAME` or a hub id, as one folder on disk."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from danlu.core.errors import UserError
from danlu.core.parts import did_you_mean
from danlu.models.builtin.catalogue import PREFIX, ROOM, builtin_folder

MODEL, ADAPTER = "config.json", "adapter_config.json"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
HUB_FILES_WITHOUT_WEIGHTS = [pattern for pattern in HUB_FILES if pattern != "*.safetensors"]


def resolve(path: str | Path, *, weights: bool = True) -> Path:
    """The folder with the model's or adapter's own files; of a hub model without its `weights` if not wanted."""
    name = str(path)
    if name.startswith(PREFIX):
        return builtin_folder(name.removeprefix(PREFIX))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return inner(folder.absolute())
    if folder.is_file():
        raise UserError(f"{name}: a model is a folder with {MODEL} and safetensors, found a file")
    if HUB_ID.fullmatch(name):
        return from_hub(name, HUB_FILES if weights else HUB_FILES_WITHOUT_WEIGHTS)
    built_in = rebuilt(folder)
    if built_in is not None:
        return built_in
    siblings = [each.name for each in folder.parent.iterdir() if each.is_dir()] if folder.parent.is_dir() else []
    hint = did_you_mean(folder.name, siblings)
    raise UserError(f"{name}: no such folder{hint}; built-in models are written {PREFIX}smollm2-135m")


def inner(folder: Path) -> Path:
    """Of a run the artifact in final/, of a checkpoint the one model in it, of a model or adapter the folder itself."""
    if (folder / "run.yaml").is_file() and not is_model(folder):
        return artifact(folder)
    if is_model(folder):
        return folder
    models = [child for child in folder.iterdir() if child.is_dir() and is_model(child)]
    policy = [child for child in models if child.name == "policy"] or models
    if len(policy) == 1:
        return policy[0]
    raise UserError(f"{folder}: no model: expected {MODEL} or {ADAPTER}, found {listing(folder)}")


def artifact(run: Path) -> Path:
    """What a run left behind."""
    if is_model(run / "final"):
        return run / "final"
    checkpoints = sorted((run / "checkpoints").glob("step-*[0-9]"))
    hint = f"; its newest checkpoint is {checkpoints[-1]}" if checkpoints else ""
    raise UserError(f"{run}: this run has not finished: there is no final/{hint}")


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model or an adapter."""
    return (folder / MODEL).is_file() or (folder / ADAPTER).is_file()


def listing(folder: Path) -> str:
    """The first few names in a folder, for an error."""
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "") if names else "an empty folder"


def from_hub(name: str, files: list[str]) -> Path:
    """A hub model from the Hugging Face cache, or downloaded now; weights are taken as safetensors only."""
    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f"{name}: no such folder here, and the hub did not give it ({type(error).__name__}); without a network, "
            f"bring a folder from `hf download {name} --local-dir FOLDER` and name that, or use {PREFIX}smollm2-135m"
        ) from error


def rebuilt(folder: Path) -> Path | None:
    """A built-in model that another machine's cache held, made here: what an adapter moved between machines names."""
    return builtin_folder(folder.name) if folder.parent.name == ROOM else None
