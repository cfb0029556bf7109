"""What the engine's tests share."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture(params=[7, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def stride(request: pytest.FixtureRequest) -> int:
    """Strike at every operation in the slow suite, at every seventh in the quick one."""
    return request.param


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: a kill does not care, and an fsync there costs nothing."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)
