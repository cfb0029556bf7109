"""`danlu --help` answers before torch could have been imported."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

HEAVY = ("torch", "transformers", "numpy", "pyarrow", "matplotlib", "datasets", "peft")
ASK = """
import sys
{start}
print("\\nHEAVY", *[name for name in {heavy!r} if name in sys.modules])
"""
START = """
from danlu.cli import main
sys.argv = ["danlu", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def heavy_after(start: str) -> tuple[str, list[str]]:
    """What a fresh process printed, and which heavy packages it had imported by then."""
    code = ASK.format(start=start, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, _, names = done.stdout.rpartition("\nHEAVY")
    return said, names.split()


@pytest.mark.skipif(not (find_spec("danlu.cli") and find_spec("danlu.cli").origin), reason="danlu.cli is not there")
def test_help_imports_nothing_heavy():
    said, heavy = heavy_after(START)
    assert "train" in said
    assert heavy == []


def test_a_planted_heavy_import_is_found():
    assert heavy_after("import numpy") == ("", ["numpy"])


def test_the_foundations_import_nothing_heavy():
    assert heavy_after("import danlu, danlu.core.config, danlu.core.files, danlu.samples") == ("", [])
