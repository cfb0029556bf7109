"""Several answers to each prompt, drawn by chance. A prompt is read once, and its answers share what was read."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from danlu.generate.base import GenerationConfig
from danlu.generate.complete import decoding, until_stop
from danlu.generate.slots import in_rows, written
from danlu.generate.writers.base import Draft
from danlu.models.policy import Policy

PAD = 0
"""masked before a prompt and cut off behind an answer, so any id would do"""


@torch.no_grad()
def groups(
    policy: Policy,
    prompts: Sequence[list[int]],
    count: int,
    config: GenerationConfig,
    stops: set[int],
    *,
    at_once: int,
    chance_AN: Tensor | None = None,
) -> list[list[Draft]]:
    """`count` answers to each prompt, `at_once` of them together.

    `chance_AN` in [0,1) decides each answer's tokens where a model can be run in rows, elsewhere torch's own generator.
    """
    with policy.writing():  # also where there is nothing to write: others gather weights for it
        if not prompts:
            return []
        if config.repetition_penalty == 1 and in_rows(policy):
            found = written(policy, prompts, count, config, stops, at_once, chance_AN)
        else:
            step = max(1, at_once // count)
            parts = [prompts[start : start + step] for start in range(0, len(prompts), step)]
            with policy.own_attention() as model:
                found = [ids for part in parts for ids in generated(model, part, count, config, stops)]
    drafts = [draft(until_stop(ids, stops), stops) for ids in found]
    return [drafts[start : start + count] for start in range(0, len(drafts), count)]


def generated(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    count: int,
    config: GenerationConfig,
    stops: set[int],
) -> list[list[int]]:
    """The answers to some prompts, all together, by transformers' generate."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts]).to(model.device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]).to(model.device)
    cache = read(model, ids[:, :-1], mask[:, :-1]) if longest > 1 and not model._is_stateful else None
    if cache is not None:
        cache.batch_repeat_interleave(count)
    found: Any = model.generate(  # type: ignore[operator]
        input_ids=ids.repeat_interleave(count, 0),
        attention_mask=mask.repeat_interleave(count, 0),
        generation_config=decoding(config, stops, PAD),
        past_key_values=cache,
    )
    return found[:, longest:].tolist()


def read(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> DynamicCache:
    """What a model remembers of the prompts but for their last tokens, which generate reads itself.

    Its body alone reads: torch multiplies the last of several tokens by a copy of the output layer for each prompt.
    """
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)  # as generate counts them; ALiBi has none
    given = {"position_ids": positions} if "position_ids" in signature(model.base_model.forward).parameters else {}
    model.base_model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **given)
    return cache


def draft(ids: list[int], stops: set[int]) -> Draft:
    """Ids as an answer."""
    return Draft(ids, "stop" if ids[-1] in stops else "length")
