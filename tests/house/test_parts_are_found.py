"""A folder is the list of its parts: one part in a file, under the file's name, and listing them imports none."""

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

import danlu
from danlu.core.parts import Folder, Part
from tests.house.rules import REPOSITORY

LIST = """
import importlib, sys
from tests.house.test_parts_are_found import folders
found = list(folders(importlib.import_module(sys.argv[1])))
names = [f"{folder.package}.{name}" for folder in found for name in folder]
print(len(names), *[name for name in names if name in sys.modules])
"""


def packages(package: ModuleType) -> Iterator[ModuleType]:
    """Every package inside a package, imported."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.ispkg:
            yield importlib.import_module(module.name)


def base_of(room: ModuleType) -> dict[str, object]:
    """What a package's `base.py` defines, if it has one."""
    has_base = any(module.name == "base" for module in pkgutil.iter_modules(room.__path__))
    return vars(importlib.import_module(f"{room.__name__}.base")) if has_base else {}


def folders(package: ModuleType) -> Iterator[Folder]:
    """Every folder of parts inside a package, made in its `__init__.py` or in its `base.py`."""
    for room in packages(package):
        things = [thing for thing in [*vars(room).values(), *base_of(room).values()] if isinstance(thing, Folder)]
        yield from {id(folder): folder for folder in things if folder.package == room.__name__}.values()


def wrong_parts(package: ModuleType) -> list[str]:
    """Files of a folder of parts that do not hold exactly one part under their own name."""
    offences = []
    for folder in folders(package):
        for name in folder:
            try:
                part = folder[name]
            except ValueError as error:
                offences.append(f"{folder.package}.{name}: {error}")
                continue
            except ModuleNotFoundError as missing:  # an extra that is not installed here
                if missing.name and missing.name.partition(".")[0] == package.__name__:
                    offences.append(f"{folder.package}.{name}: {missing}")
                continue
            named = any(word in part.__name__.lower() for word in name.split("_"))
            if not named or folder.name_of(part.model_construct()) != name:
                offences.append(f"{folder.package}.{name}: holds {part.__name__}, a part of another name")
    return offences


def unlisted(package: ModuleType) -> list[str]:
    """Packages whose `base.py` defines a kind of part, and that have no Folder."""
    listed = {folder.package for folder in folders(package)}
    return [room.__name__ for room in packages(package) if kinds_in(room) and room.__name__ not in listed]


def kinds_in(room: ModuleType) -> list[type[Part]]:
    """The kinds of part that a package's `base.py` defines."""
    base = f"{room.__name__}.base"
    types = [thing for thing in base_of(room).values() if isinstance(thing, type) and thing.__module__ == base]
    return [kind for kind in types if issubclass(kind, Part)]


def imported_by_listing(name: str, path: str = "") -> list[str]:
    """How many parts a package lists, then those that listing them has imported."""
    command, environment = [sys.executable, "-c", LIST, name], os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A package with a folder of parts; more files can be put into it."""
    root = tmp_path / "toys"
    (root / "losses").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "losses/base.py").write_text("from danlu.core.parts import Part\nclass Loss(Part):\n    pass\n")
    (root / "losses/__init__.py").write_text(
        "from danlu.core.parts import Folder\nfrom toys.losses.base import Loss\nlosses = Folder(__name__, Loss)\n"
    )
    (root / "losses/half_square.py").write_text("from toys.losses.base import Loss\nclass HalfSquare(Loss): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield root
    for name in [name for name in sys.modules if name.partition(".")[0] == "toys"]:
        del sys.modules[name]


def test_every_file_of_a_folder_is_one_part_of_that_name():
    assert wrong_parts(danlu) == []


def test_every_folder_of_parts_lists_them():
    assert unlisted(danlu) == []


def test_listing_imports_no_part():
    count, *imported = imported_by_listing("danlu")
    assert int(count) > 0
    assert imported == []


def test_a_well_kept_folder_is_not_accused(toys):
    package = importlib.import_module("toys")
    assert wrong_parts(package) == []
    assert unlisted(package) == []
    assert imported_by_listing("toys", str(toys.parent)) == ["1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("from toys.losses.base import Loss\nclass Tall(Loss): pass\nclass Square(Loss): pass\n", "should be one Loss"),
        ("", "should be one Loss"),
        ("from toys.losses.base import Loss\nclass Round(Loss): pass\n", "a part of another name"),
        ("import toys.nowhere\n", "toys.nowhere"),
    ],
)
def test_a_planted_file_is_found(toys, text, words):
    (toys / "losses/square.py").write_text(text)
    (offence,) = wrong_parts(importlib.import_module("toys"))
    assert offence.startswith("toys.losses.square: ")
    assert words in offence


def test_a_planted_folder_without_a_list_is_found(toys):
    (toys / "losses/__init__.py").write_text("")
    assert unlisted(importlib.import_module("toys")) == ["toys.losses"]


def test_a_planted_eager_door_is_found(toys):
    with open(toys / "losses/__init__.py", "a") as file:
        file.write("from toys.losses.half_square import HalfSquare\n")
    assert imported_by_listing("toys", str(toys.parent)) == ["1", "toys.losses.half_square"]
