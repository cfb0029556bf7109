"""Recipes: read a YAML file, apply `key=value` overrides, resolve `${…}`, and say exactly what is wrong."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from danlu.core.errors import UserError
from danlu.core.parts import Config

C = TypeVar("C", bound=Config)

LIMIT_BYTES = 1 << 20
REFERENCE = re.compile(r"(?<!\\)\$\{(\w[\w.\[\]-]*)\}")
"""`${key}`: the only one of OmegaConf's expressions that a recipe may hold"""


def read_tree(path: Path) -> dict[str, Any]:
    """A recipe's YAML as it stands, before overrides; `1e-4` is a number."""
    if path.stat().st_size > LIMIT_BYTES:
        raise UserError(f"{path}: {path.stat().st_size:,} bytes is no recipe (at most {LIMIT_BYTES:,})")
    try:
        tree = OmegaConf.load(path)
    except RecursionError as error:
        raise UserError(f"{path}: not a YAML recipe: nested too deeply") from error
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML recipe: {error}") from error
    if not isinstance(tree, DictConfig):
        raise UserError(f"{path}: a recipe is a mapping of keys to values, found {type(tree).__name__}")
    return OmegaConf.to_container(tree)  # type: ignore[return-value]


def load(kind: type[C], tree: dict[str, Any], overrides: Sequence[str] = (), *, origin: str = "recipe") -> C:
    """`load(TrainRun, read_tree(path), ["objective.beta=0.2"], origin="dpo.yaml")`"""
    return validate(kind, resolve(tree, overrides, origin=origin), origin=origin)


def resolve(tree: dict[str, Any], overrides: Sequence[str] = (), *, origin: str) -> dict[str, Any]:
    """A tree with its overrides, and every `${key}` followed; values are not looked at."""
    try:
        merged = OmegaConf.create(tree)
        for override in overrides:
            key, equals, _ = override.partition("=")
            if not equals or not key:
                raise UserError(f"{override!r}: an override is written key=value, such as engine.steps=100")
            check_references(OmegaConf.to_container(merged), origin)  # before anything is looked up
            place_for_name(merged, key)
            # whole, not merged: `adapter={name: freeze}` must not inherit the rank of the recipe's lora
            given = OmegaConf.to_container(OmegaConf.from_dotlist([override]))
            OmegaConf.update(merged, key, quoted(given, key), merge=False)
        check_references(OmegaConf.to_container(merged), origin)
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise UserError("\n".join(f"{origin}: {key} is missing; give it as {key}=…" for key in missing))
        return OmegaConf.to_container(merged, resolve=True)  # type: ignore[return-value]
    except RecursionError as error:
        raise UserError(f"{origin}: nested too deeply") from error
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"{origin}: {error}") from error


def check_references(tree: Any, origin: str) -> None:
    """Refuse every `${…}` that is no plain key, and those that would fill the memory when they are followed."""
    for place, text in texts_of(tree):
        if "${" in REFERENCE.sub("", text):
            raise UserError(f"{origin}: {place}: only `${{key}}` is known, found {text!r:.80}")
    if full_size(tree, tree, {}) > LIMIT_BYTES:
        raise UserError(f"{origin}: with every `${{key}}` written out it is no recipe (at most {LIMIT_BYTES:,} bytes)")


def texts_of(tree: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a tree, with its dotted place."""
    if isinstance(tree, str):
        yield place, tree
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield from texts_of(value, f"{place}.{key}" if place else str(key))


def full_size(value: Any, tree: Any, known: dict[str, int]) -> int:
    """About how many characters a value of a tree has with every reference written out; `known` are sizes by key."""
    if not isinstance(value, str):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + sum(full_size(each, tree, known) for each in inner)
    for key in REFERENCE.findall(value):
        if key not in known:
            known[key] = 0  # a circle ends here; to follow it is an error of its own
            known[key] = full_size(quoted(tree, key), tree, known)
    return len(value) + sum(known[key] for key in REFERENCE.findall(value))


def quoted(tree: Any, key: str) -> Any:
    """What stands at a dotted key, or the reference that stands on the way to it."""
    for part in re.findall(r"[^.\[\]]+", key):
        if isinstance(tree, list):
            tree = dict(enumerate(tree))
        if not isinstance(tree, dict):
            return tree
        tree = {str(name): value for name, value in tree.items()}.get(part)
    return tree


def place_for_name(tree: DictConfig, key: str) -> None:
    """`objective: sft` is short for `objective: {name: sft}`; make room for an override such as objective.beta=0.2."""
    parts = key.split(".")
    for depth in range(1, len(parts)):
        place = ".".join(parts[:depth])
        value = OmegaConf.select(tree, place)
        if isinstance(value, str):
            OmegaConf.update(tree, place, {"name": value}, merge=False)


def validate(kind: type[C], tree: Any, *, origin: str) -> C:
    """Build the config, or raise one `UserError` with a line for each wrong place."""
    try:
        return kind.model_validate(
            tree, context={"allow_code": isinstance(tree, dict) and tree.get("allow_code") is True}
        )
    except ValidationError as error:
        raise UserError("\n".join(f"{origin}: {line}" for line in explain(error))) from error


def explain(error: ValidationError) -> list[str]:
    """`objective.betta: unknown key; did you mean 'beta'?`, one line for each wrong place."""
    lines = []
    for found in error.errors():
        place = ".".join(str(part) for part in found["loc"]) or "(top)"
        message = found["msg"].removeprefix("Value error, ")
        shown = "" if found["type"] in ("unknown_key", "missing") else f" (found {found['input']!r:.80})"
        lines.append(f"{place}: {message}{shown}")
    return lines


def to_yaml(run: Config) -> str:
    """The resolved run, every default written out: what goes beside the weights."""
    return yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
