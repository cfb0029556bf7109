"""The policy writes in its own process: with its weights of now, and where memory is short it says what to lower."""

import pytest
import torch

from danlu.core.errors import MemoryLimit
from danlu.generate.base import GenerationConfig
from danlu.generate.groups import groups
from danlu.generate.writers import writers

PROMPTS = [[5, 6, 7, 8], [9, 10]]
GREEDY = GenerationConfig(max_tokens=4)


def test_each_call_writes_with_the_weights_of_then(desk):
    desk = desk()
    policy = desk.policy
    write = writers["local"](at_once=3).open(desk)
    before = write(PROMPTS, 2, GREEDY)
    assert before == groups(policy, PROMPTS, 2, GREEDY, desk.stops, at_once=3)
    torch.nn.init.normal_(policy.head.weight)
    assert write(PROMPTS, 2, GREEDY) != before


def test_too_little_memory_names_what_to_lower(desk, monkeypatch):
    desk = desk()
    policy = desk.policy.train()
    write = writers["local"]().open(desk)

    def full(*given, **named):
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    monkeypatch.setattr(policy.backbone, "forward", full)
    words = r"answers were written \(CUDA out of memory.\); lower objective.writer.at_once"
    with pytest.raises(MemoryLimit, match=words):
        write(PROMPTS, 2, GREEDY)
    assert policy.training
