"""A policy that learns, and what a writer is given of it."""

import pytest
import torch

from danlu.generate.writers.base import Desk
from danlu.models.adapters import adapters
from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer
from danlu.models.load import ModelConfig, build_model
from danlu.models.policy import Policy


@pytest.fixture
def desk(tmp_path):
    """`desk("lora")`: for a policy with this adapter."""

    def made(adapter: str = "full", **settings) -> Desk:
        chosen = adapters[adapter](**settings)
        torch.manual_seed(0)
        policy = Policy(chosen.apply(build_model(ModelConfig(path="builtin:tiny-llama"), torch.float32)))
        return Desk(policy, chosen, tiny_tokenizer(), {3, 40, 41}, tmp_path / "shared")

    return made
