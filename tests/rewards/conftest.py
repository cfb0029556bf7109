"""Answers to judge, and what a judge is given of a run."""

import pytest
import torch

from danlu.core.errors import SetupError
from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer
from danlu.rewards._box import Limits, run
from danlu.rewards.base import Answer, Court


def has_doors() -> bool:
    """Whether this kernel can shut a program in."""
    try:
        run({"main.py": ""}, ["{folder}/main.py"], Limits(10.0, 256, 1, 4))
    except SetupError:
        return False
    return True


boxed = pytest.mark.skipif(not has_doors(), reason="this kernel has no namespaces or Landlock to shut programs in")


def answer(text: str, expected: str | None = None, *, ids: list[int] | None = None, prompt: str = "count") -> Answer:
    """What a model wrote."""
    return Answer(prompt, text, expected, "stop", [5, 6], list(range(4)) if ids is None else ids, "rows.jsonl:7")


@pytest.fixture
def court() -> Court:
    return Court(tiny_tokenizer(), torch.device("cpu"), 64)
