"""From a launcher's files and environment to overrides of a recipe, which the user's own overrides come after."""

import json
import logging
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from danlu.core.config import LIMIT_BYTES, read_tree
from danlu.core.errors import UserError
from danlu.data.files.find import nearest
from danlu.dialects.accelerate import accelerate
from danlu.dialects.accelerate_environment import as_file, take_out
from danlu.dialects.deepspeed import deepspeed
from danlu.dialects.fairscale import BLOCKS, hydra, is_hydra
from danlu.dialects.reading import Reading
from danlu.runs.recipe import find

log = logging.getLogger(__name__)

NAMED = {"engine.optimizer": ["lr", "weight_decay"], "engine.schedule": ["warmup"]}
"""parts that a file chooses, and what of another part's settings still has a meaning there"""


def launch_overrides(
    recipe: str,
    overrides: Sequence[str],
    deepspeed_file: Path | None,
    accelerate_file: Path | None,
    environ: MutableMapping[str, str],
    *,
    ranks: int | None = None,
) -> list[str]:
    """Every override of a run: the environment's, the files', the user's; a later one wins.

    What `accelerate launch` said leaves `environ`; `ranks` is for whoever knows better than its WORLD_SIZE.
    """
    theirs = [each for each in overrides if each.split("=")[0].split(".")[0] in BLOCKS]
    ours = [each for each in overrides if each not in theirs]
    ranks = ranks or int(environ.get("WORLD_SIZE", "1"))
    try:
        readings = list(read_all(deepspeed_file, accelerate_file, environ, ranks, theirs))
    except RecursionError as error:
        raise UserError(f"{deepspeed_file or accelerate_file}: nested too deeply") from error
    settings = {key: value for reading in readings for key, value in reading.settings.items()}
    typed = {each.split("=")[0] for each in ours}
    if any(key.startswith("data.batch") for key in typed):
        typed.add("data.batch")  # rows of a file beside the user's tokens would be two answers to one question
    if environ.get("RANK", "0") == "0":
        for line in (line for reading in readings for line in reading.lines):
            log.info("%s", line)
        for key in sorted(typed & settings.keys()):
            log.info("%s: as you typed it, not as a file says", key)
    wanted = {key: value for key, value in settings.items() if key not in typed}
    return [*as_overrides(wanted, read_tree(find(recipe)) if wanted else {}), *ours]


def read_all(
    deepspeed_file: Path | None,
    accelerate_file: Path | None,
    environ: MutableMapping[str, str],
    ranks: int,
    overrides: list[str],
) -> Iterator[Reading]:
    """What was said, from the one who has the least to say."""
    said = as_file(take_out(environ))
    if said is not None:
        reading = read_accelerate(said, ranks, "accelerate launch")
        reading.idle.clear()  # a launcher fills in much that nobody asked for
        yield reading
    if accelerate_file is not None:
        yield read_accelerate(read_file(accelerate_file), ranks, str(accelerate_file))
    if deepspeed_file is not None:
        yield read_deepspeed(read_file(deepspeed_file), ranks, overrides, str(deepspeed_file))
    elif overrides:
        raise UserError(f"{overrides[0]}: it is about a launch file; give that as --deepspeed FILE")


def read_file(path: Path) -> dict[str, Any]:
    """A JSON or YAML file as it stands."""
    if not path.is_file():
        raise UserError(f"{path}: no such file{nearest(path)}")
    if path.suffix.lower() in (".yaml", ".yml"):
        return read_tree(path)
    if path.stat().st_size > LIMIT_BYTES:
        raise UserError(f"{path}: {path.stat().st_size:,} bytes are no launch file (at most {LIMIT_BYTES:,})")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a mapping of keys to values is expected, found {type(tree).__name__}")
    return tree


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping that says nothing twice."""
    twice = [key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number])]
    if twice:
        raise ValueError(f"{twice[0]!r} stands there twice")
    return dict(pairs)


def read_deepspeed(tree: dict[str, Any], ranks: int, overrides: list[str], origin: str) -> Reading:
    """A DeepSpeed JSON, or a Hydra file that holds one."""
    if is_hydra(tree):
        return hydra(tree, ranks, overrides, origin)
    if overrides:
        raise UserError(f"{overrides[0]}: {origin} holds no such block")
    return deepspeed(tree, ranks, origin)


def read_accelerate(tree: dict[str, Any], ranks: int, origin: str) -> Reading:
    """An Accelerate file, with the DeepSpeed JSON that it may name."""
    inner = tree.get("deepspeed_config")
    file = inner.get("deepspeed_config_file") if isinstance(inner, dict) else None
    used = tree.get("distributed_type") == "DEEPSPEED" and file not in (None, "none")
    return accelerate(tree, ranks, origin, read_file(Path(str(file))) if used else None)


def as_overrides(settings: dict[str, Any], recipe: dict[str, Any]) -> list[str]:
    """`key=value` of each setting; a part keeps what the recipe says of it."""
    found = []
    for key, value in settings.items():
        if key in NAMED:
            value = with_recipe(value, standing(recipe, key), NAMED[key])
        found.append(f"{key}={json.dumps(value)}")
    return found


def with_recipe(part: dict[str, Any], recipe: dict[str, Any], shared: list[str]) -> dict[str, Any]:
    """A part with the settings that the recipe has for it, or for the part in its place."""
    same = recipe.get("name") == part["name"]
    return {**{key: value for key, value in recipe.items() if same or key in shared}, **part}


def standing(recipe: dict[str, Any], key: str) -> dict[str, Any]:
    """What a recipe says of one of its engine's parts."""
    value = (recipe.get("engine") or {}).get(key.removeprefix("engine.")) or {}
    default = {"engine.optimizer": "adamw", "engine.schedule": "cosine"}[key]
    return {"name": value} if isinstance(value, str) else {"name": default, **value}
