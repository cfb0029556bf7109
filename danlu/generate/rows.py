"""Key-value caches for answers that are written side by side: prompts come out of a pack, and go into rows.

B: rows, L: tokens that a row has room for, K: key heads, D: head size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from danlu.models.kernels.segment_attention import Segments
from danlu.models.policy import Policy

READ = 8192
"""tokens of prompts that are read at once"""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's ids, and each layer's keys and values [1,K,n,D] of all of them but the last."""

    ids: list[int]
    keys: list[Tensor]
    values: list[Tensor]


class Recorder(Cache):
    """Keeps the keys and values of a pack as they are computed."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """By transformers' contract."""
        self.keys[layer_idx], self.values[layer_idx] = key_states, value_states
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """A pack begins at its own places."""
        return 0


class Rows(Cache):
    """Keys and values [B,K,L,D] of each layer; each row's new token goes to a place of its own."""

    def __init__(self, like: Prompt, rows: int, room: int, places_B: Tensor) -> None:
        super().__init__(layers=[])
        self.keys, self.values = (
            [part.new_zeros(rows, part.shape[1], room, part.shape[3]) for part in parts]
            for parts in (like.keys, like.values)
        )
        self.places_B = places_B
        self.used = room
        """how far rows are looked at"""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """By transformers' contract."""
        found = []
        for kept, new in ((self.keys[layer_idx], key_states), (self.values[layer_idx], value_states)):
            kept.scatter_(2, self.places_B[:, None, None, None].expand_as(new), new)
            found.append(kept[:, :, : self.used])
        return tuple(found)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Nobody counts: each row knows its places."""
        return 0

    def begin(self, row: int, prompt: Prompt) -> None:
        """Put a prompt into a row."""
        for kept, parts in ((self.keys, prompt.keys), (self.values, prompt.values)):
            for whole, part in zip(kept, parts, strict=True):
                whole[row, :, : part.shape[2]] = part[0]

    def keep(self, rows: Tensor, places_B: Tensor) -> None:
        """Only these rows are still written."""
        self.keys = [each[rows] for each in self.keys]
        self.values = [each[rows] for each in self.values]
        self.places_B = places_B


def read(policy: Policy, prompts: Sequence[list[int]]) -> list[Prompt]:
    """What a policy remembers of each prompt but for its last token, all read in one pack."""
    lengths = [len(prompt) - 1 for prompt in prompts]
    known = [length for length in lengths if length] or [1]  # prompts of one token leave nothing to remember
    ids = [token for prompt in prompts for token in prompt[:-1]] or prompts[0]
    recorder = Recorder()
    policy.body(
        input_ids=torch.tensor([ids], device=policy.device),
        position_ids=torch.cat([torch.arange(length) for length in known])[None].to(policy.device),
        segments=Segments(known, policy.device),
        past_key_values=recorder,
        use_cache=True,
    )
    rest = len(ids) - sum(lengths)
    parts = [
        [side[layer].split([*lengths, rest], dim=2)[:-1] for layer in sorted(side)]
        for side in (recorder.keys, recorder.values)
    ]
    return [
        Prompt(prompt, *([layer[number] for layer in side] for side in parts)) for number, prompt in enumerate(prompts)
    ]


def packed(prompts: Sequence[list[int]]) -> Iterator[Sequence[list[int]]]:
    """Prompts in their order, as many together as are read at once."""
    start, tokens = 0, 0
    for number, prompt in enumerate(prompts):
        tokens += len(prompt)
        if tokens > READ and number > start:
            yield prompts[start:number]
            start, tokens = number, len(prompt)
    yield prompts[start:]
