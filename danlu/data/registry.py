"""Data sets by name: from a dataset_info.json, or from danlu's own list of public sets."""

from collections.abc import Iterator
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import Any, Literal

from danlu.core.errors import DataError
from danlu.core.parts import did_you_mean
from danlu.data.catalogue import Entry, catalogue
from danlu.data.dataset_info import FILE, read_info, settings_of

FOLDER = "data"
"""where a registry and fetched sets are looked for if nothing else is said"""
ONLINE = "ONLINE"
"""a registry that takes every name for an id of the hub"""


@dataclass(frozen=True)
class Known:
    """A registered data set."""

    name: str
    origin: str
    state: Literal["here", "hub", "fetch", "missing"]
    how: str
    """what to do for its rows to be here"""
    licence: str
    shape: str


def source_of(name: str, registry: str | None = None) -> dict[str, Any]:
    """The settings of a source that is given by name."""
    if registry == ONLINE:
        return {"path": f"hf://datasets/{name}"}
    file = registry_file(registry)
    entries = read_info(file) if file else {}
    if name in entries:
        return settings_of(name, entries[name], file.parent) if file else {}
    if registry is None and name in catalogue():
        return settings_of_entry(name, catalogue()[name], Path(FOLDER))
    known = [*entries, *(catalogue() if registry is None else ())]
    hint = did_you_mean(name, known) or f"; known: {', '.join(known) or 'none'}"
    raise DataError(f"Undefined dataset {name} in {file or FILE}{hint} (`danlu data list` prints all)")


def looked_up(given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a source, with a registered name in them made into where its rows are and how they are read."""
    path, name = given.get("path"), given.get("name")
    asked = given.get("dataset")
    if isinstance(path, str) and is_word(path) and (given.get("registry") or is_registered(path)):
        asked, path = path, None
    elif not path and asked is None and isinstance(name, str) and is_registered(name):
        asked = name
    if path:
        return given
    if not isinstance(asked, str):
        raise DataError("a source needs a path, or a dataset that is registered (`danlu data list` prints them)")
    mine = {key: value for key, value in given.items() if key != "path"}
    return source_of(asked, given.get("registry")) | mine | {"dataset": asked}


def is_word(path: str) -> bool:
    """Whether a path may be a registered name: nothing on this disk has it, and it is no glob."""
    return bool(path) and "/" not in path and not has_magic(path) and not Path(path).exists()


def registry_file(registry: str | None) -> Path | None:
    """The dataset_info.json of a folder or path; none where nobody asked for one and none is in data/."""
    place = Path(registry or FOLDER).expanduser()
    file = place / FILE if place.is_dir() or not place.suffix else place
    if file.is_file():
        return file
    if registry is None:
        return None
    raise DataError(f"{file}: no such registry; give the folder that holds {FILE}, or the file itself")


def is_registered(name: str) -> bool:
    """Whether a bare word is a data set's name."""
    file = registry_file(None)
    return bool(file and name in read_info(file)) or name in catalogue()


def settings_of_entry(name: str, entry: Entry, folder: Path) -> dict[str, Any]:
    """A public set as the settings of a source: fetched, or on the hub, or where it will be once it is fetched."""
    here = entry.here(name, folder)
    there = entry.direct or [str(folder / (entry.result or f"raw_train/{name}"))]
    path = str(here) if here else there if len(there) > 1 else there[0]
    return {"path": path, "columns": entry.columns} if entry.columns else {"path": path}


def every_known(registry: str | None = None, folder: Path = Path(FOLDER)) -> Iterator[Known]:
    """All that can be named, with where it is."""
    file = registry_file(registry)
    for name, entry in (read_info(file) if file else {}).items():
        yield of_info(name, entry, file.parent) if file else NotImplemented
    for name, entry in catalogue().items():
        yield of_catalogue(name, entry, folder)


def of_info(name: str, entry: dict[str, Any], folder: Path) -> Known:
    """An entry of a dataset_info.json, for people."""
    shape = str(entry.get("formatting", "alpaca")) + (", ranked" if entry.get("ranking") else "")
    origin = str(folder / FILE)
    try:
        path = settings_of(name, entry, folder)["path"]
    except DataError as error:
        return Known(name, origin, "missing", str(error), "", shape)
    first = path if isinstance(path, str) else path[0]
    if "://" in first:
        return Known(name, origin, "hub", first, "", shape)
    if Path(first).exists():
        return Known(name, origin, "here", first, "", shape)
    return Known(name, origin, "missing", f"put the file at {first}", "", shape)


def of_catalogue(name: str, entry: Entry, folder: Path) -> Known:
    """A public set, for people."""
    here = entry.here(name, folder)
    state: Literal["here", "hub", "fetch", "missing"]
    state = "here" if here else "hub" if entry.direct else "fetch" if entry.files else "missing"
    how = str(here) if here else how_to_fetch(name, entry)
    return Known(name, "danlu", state, how, entry.licence, entry.shape)


def how_to_fetch(name: str, entry: Entry) -> str:
    """What to type, and what it takes."""
    if not entry.files and not entry.hub:
        return f"no public copy of its file is known; if you have it, put it at data/{entry.result}"
    token = f" (accept its terms at {entry.page} and set HF_TOKEN)" if entry.gated else ""
    return f"danlu data fetch {name}{token}"


def advice(dataset: str | None, path: str) -> str:
    """What to type where the files of a registered set are not there, or where a path may have been meant as a name."""
    if dataset is None:
        return did_you_mean(path, list(catalogue())) if is_word(path) else ""
    entry = catalogue().get(dataset)
    if entry:
        return f"; {dataset} is not here yet: {how_to_fetch(dataset, entry)}"
    return f"; that is where the registry says {dataset} is"
