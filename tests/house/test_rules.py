"""Danlu keeps the rules of the house, and each rule can be broken: a planted offender is found."""

from pathlib import Path

import pytest

from tests.house import rules

SIGN = '"""A room."""\n'
PLANTED = [
    (rules.floors_hold, "core/a.py", "from danlu.engine.loop import fit"),
    (rules.floors_hold, "core/a.py", "def late():\n    import danlu.models"),
    (rules.floors_hold, "data/a.py", "from danlu import models"),
    (rules.floors_hold, "data/formats/a.py", "from ...models import load"),
    (rules.floors_hold, "core/a.py", "from importlib import import_module\nimport_module('danlu.engine')"),
    (rules.floors_hold, "attic/a.py", ""),
    (rules.imports_are_at_the_top, "engine/a.py", "def late():\n    import json"),
    (
        rules.imports_are_at_the_top,
        "engine/a.py",
        "class A:\n    async def late(self):\n        from json import dumps",
    ),
    (rules.every_field_has_help, "core/a.py", "class A(Part):\n    beta: float = 0.1"),
    (
        rules.every_field_has_help,
        "core/a.py",
        "class A(Part):\n    'A.'\nclass B(A):\n    'B.'\n    beta: float\n    rho: int\n    'x'",
    ),
    (rules.every_field_has_help, "core/a.py", "class A(parts.Config):\n    beta: float\n    def f(self): 'words'"),
    (rules.every_folder_has_a_door_sign, "tokens/templates/a.py", ""),
    (rules.every_folder_has_a_door_sign, "data/__init__.py", '"""Two\nlines."""'),
    (rules.names_say_what_is_inside, "core/utils.py", ""),
    (rules.names_say_what_is_inside, "core/file_helpers.py", ""),
    (rules.names_say_what_is_inside, "misc/a.py", ""),
    (rules.files_and_functions_are_short, "core/a.py", "x = 1\n" * 401),
    (rules.files_and_functions_are_short, "core/a.py", "def long():\n" + "    x = 1\n" * 80),
    (rules.public_things_are_explained, "core/a.py", "x = 1"),
    (rules.public_things_are_explained, "core/a.py", "'A.'\ndef f(): pass"),
    (rules.public_things_are_explained, "core/a.py", "'A.'\nclass A:\n    'A.'\n    def f(self): pass"),
    (rules.nothing_unsafe, "core/a.py", "torch.load(path)"),
    (rules.nothing_unsafe, "core/a.py", "torch.load(path, weights_only=False)"),
    (rules.nothing_unsafe, "core/a.py", "torch.load(path, weights_only=flag)"),
    (rules.nothing_unsafe, "core/a.py", "import pickle"),
    (rules.nothing_unsafe, "core/a.py", "from pickle import load"),
    (rules.nothing_unsafe, "core/a.py", "yaml.load(text, Loader)"),
    (rules.nothing_unsafe, "core/a.py", "from yaml import unsafe_load"),
    (rules.nothing_unsafe, "core/a.py", "subprocess.run(words, shell=True)"),
    (rules.nothing_unsafe, "core/a.py", "eval(text)"),
    (rules.nothing_unsafe, "core/a.py", "os.system(text)"),
    (rules.nothing_unsafe, "core/a.py", "load(name, trust_remote_code=True)"),
    (rules.nothing_unsafe, "core/a.py", "load(name, **{'trust_remote_code': True})"),
    (rules.nothing_unsafe, "core/a.py", "numpy.load(path, allow_pickle=True)"),
    (rules.nothing_unsafe, "core/a.py", "from hydra.utils import instantiate"),
]
CLEAN = {
    "core/__init__.py": SIGN,
    "core/parts.py": SIGN + "class Part:\n    'A part.'\n    tag: str\n    def loss(self):\n        'The loss.'",
    "cli/__init__.py": SIGN + "def main():\n    'Start.'\n    from danlu.runs.train import train",
    "data/__init__.py": SIGN,
    "data/formats/__init__.py": SIGN + "from danlu.core.parts import Part",
    "data/formats/alpaca.py": SIGN
    + "from . import base\nfrom ...core import parts\nclass Alpaca(parts.Part):\n    'Rows.'\n"
    + "    count: ClassVar[int]\n    _mine: int = 1\n    key: str = 'text'\n    'where the text is'\n"
    + "    def loss(self): model.eval()\n    def _own(self): pass",
}


@pytest.fixture
def house(tmp_path):
    """A small house that keeps every rule."""
    for place, text in CLEAN.items():
        build(tmp_path / "danlu", place, text)
    return tmp_path / "danlu"


def build(root: Path, place: str, text: str) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_danlu_keeps(rule):
    assert rule(rules.DANLU) == []


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_a_clean_house_is_not_accused(rule, house):
    assert rule(house) == []


@pytest.mark.parametrize(("rule", "place", "text"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_a_planted_offender_is_found(rule, place, text, house):
    build(house, place, text)
    offences = rule(house)
    assert len(offences) == 1
    assert offences[0].startswith(str(Path(place).parent))


def test_every_rule_has_a_planted_offender():
    assert {rule for rule, _, _ in PLANTED} == set(rules.RULES)


def test_the_floors_are_those_of_the_import_linter():
    assert rules.floors()[0] == {"core"}
    assert {"cli", "api", "web"} == rules.floors()[-1]
