"""Answers written side by side, each in a row of one key-value cache; where one has ended, the next one begins.

A prompt is read once, in a pack with others, and copied into the row of each of its answers. On a GPU a step is one
launch, captured beforehand: what the processor would take to launch a model's thousand kernels is more than they take.

B: rows, L: tokens that a row has room for, K: key heads, D: head size, N: tokens of an answer at most, V: vocabulary.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper
from transformers.cache_utils import Cache

from danlu.data.packing import Pack
from danlu.generate.base import GenerationConfig
from danlu.models.kernels.segment_attention import Segments
from danlu.models.kernels.slot_attention import Slots
from danlu.models.policy import Policy

log = logging.getLogger(__name__)

READ = 8192
"""tokens of prompts that are read at once"""
LOOK = 8
"""steps of a GPU between two looks at what has ended, each of which waits for it"""
ROOM = 64
"""rows are as long as a multiple of this"""


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
    policy.backbone(
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


class Writing:
    """Rows of answers that are being written. Chance comes from torch's own generator."""

    def __init__(
        self, policy: Policy, config: GenerationConfig, stops: set[int], like: Prompt, rows: int, room: int
    ) -> None:
        device = policy.device
        self.policy, self.config = policy, config
        self.stops = torch.tensor(sorted(stops), device=device)
        self.warp = LogitsProcessorList()
        if config.temperature and config.top_k:
            self.warp.append(TopKLogitsWarper(config.top_k))
        if config.temperature and config.top_p < 1:
            self.warp.append(TopPLogitsWarper(config.top_p))
        self.new_B, self.places_B, self.counts_B = (
            torch.zeros(rows, dtype=torch.long, device=device) for _ in range(3)
        )
        self.ended_B = torch.ones(rows, dtype=torch.bool, device=device)
        self.written_BN = torch.zeros(rows, config.max_tokens + LOOK, dtype=torch.long, device=device)
        self.last = room - 1
        self.cache = Rows(like, rows, room, self.places_B)

    def begin(self, row: int, prompt: Prompt) -> None:
        """A row's next answer."""
        self.cache.begin(row, prompt)
        self.new_B[row], self.places_B[row], self.counts_B[row] = prompt.ids[-1], len(prompt.ids) - 1, 0
        self.ended_B[row] = False

    def logits(self) -> Tensor:
        """[B,V] fp32, of what follows each row's newest token."""
        hidden_BH = self.policy.backbone(
            input_ids=self.new_B[:, None],
            position_ids=self.places_B[:, None],
            segments=Slots(self.places_B),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state[:, 0]
        return self.policy.head.logits(hidden_BH).float()

    def step(self) -> None:
        """One more token in each row; in those that have ended too, where nobody looks at it."""
        drawn_B = self.draw(self.logits())
        self.written_BN.scatter_(1, self.counts_B[:, None], drawn_B[:, None])
        self.counts_B += 1
        self.new_B.copy_(drawn_B)
        self.places_B.add_(1).clamp_(max=self.last)
        self.ended_B |= torch.isin(drawn_B, self.stops) | (self.counts_B >= self.config.max_tokens)

    def draw(self, logits_BV: Tensor) -> Tensor:
        """[B] Of exponential times that pass at the rate of each token's probability, the first is over."""
        if not self.config.temperature:
            return logits_BV.argmax(-1)
        scores_BV = self.warp(self.new_B[:, None], logits_BV / self.config.temperature)
        probabilities_BV = scores_BV.softmax(-1)
        return (probabilities_BV / torch.empty_like(probabilities_BV).exponential_()).argmax(-1)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone."""
        self.new_B, self.places_B, self.counts_B = self.new_B[rows], self.places_B[rows], self.counts_B[rows]
        self.ended_B, self.written_BN = self.ended_B[rows], self.written_BN[rows]
        self.cache.keep(rows, self.places_B)


    def ids(self, rows: list[int]) -> list[list[int]]:
        """Answers, with whatever was written behind their stop token."""
        return self.written_BN[rows, : self.config.max_tokens].tolist()

    def forget(self) -> None:
        """Every row is free."""
        for each in (self.new_B, self.places_B, self.counts_B):
            each.zero_()
        self.ended_B.fill_(True)


def on_a_gpu(writing: Writing) -> Callable[[], None]:
    """Some steps as launches of one captured graph; step by step where something in the model cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is made at the first call, such as a library's workspace, is made here
        writing.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    step: Callable[[], None] = graph.replay
    try:
        with torch.cuda.graph(graph):
            writing.step()
    except RuntimeError as error:
        log.warning("answers are written without a captured graph, which is slower: %s", str(error).partition("\n")[0])
        step = writing.step
    writing.forget()

    def steps() -> None:
        for _ in range(LOOK):
            step()

    return steps


def on_a_processor(writing: Writing) -> Callable[[], None]:
    """A step that looks no further than the rows are written."""

    def step() -> None:
        writing.cache.used = int(writing.places_B.max()) + 1
        writing.step()

    return step


@torch.no_grad()
def written(
    policy: Policy, prompts: Sequence[list[int]], count: int, config: GenerationConfig, stops: set[int], at_once: int
) -> list[list[int]]:
    """The ids of `count` answers to each prompt, in their order, with whatever was written behind a stop token."""
    readings = (one for some in packed(prompts) for one in read(policy, some))
    waiting = enumerate(one for one in readings for _ in range(count))
    first = list(islice(waiting, at_once))
    longest = max(len(prompt) for prompt in prompts) + config.max_tokens
    writing = Writing(policy, config, stops, first[0][1], len(first), -(-longest // ROOM) * ROOM)
    on_gpu = policy.device.type == "cuda"
    step = on_a_gpu(writing) if on_gpu else on_a_processor(writing)
    for row, (_, prompt) in enumerate(first):
        writing.begin(row, prompt)
    owners = {row: number for row, (number, _) in enumerate(first)}
    answers: list[list[int]] = [[] for _ in range(len(prompts) * count)]
    while owners:
        step()
        ended = [row for row, over in enumerate(writing.ended_B.tolist()) if over and row in owners]
        for row, ids in zip(ended, writing.ids(ended) if ended else [], strict=True):
            answers[owners.pop(row)] = ids
            following = next(waiting, None)
            if following is not None:
                owners[row], prompt = following
                writing.begin(row, prompt)
        if owners and len(owners) <= len(writing.ended_B) // 2 and not on_gpu:  # a GPU's step would not be shorter
            writing.keep(torch.tensor(sorted(owners)))
            owners = {row: owners[old] for row, old in enumerate(sorted(owners))}
    return answers


@torch.no_grad()
def in_rows(policy: Policy) -> bool:
    """Whether a policy gives the same numbers token by token in rows as for a pack; found out once, by trying."""
    if policy.in_rows is None:
        policy.in_rows = policy.packed and gives_the_same(policy)
    return policy.in_rows


def gives_the_same(policy: Policy) -> bool:
    """On two short prompts."""
    vocabulary = policy.inner.get_input_embeddings().weight.shape[0]  # type: ignore[union-attr]
    ids = ((vocabulary // 3 + 97 * torch.arange(16)) % vocabulary).tolist()
    prompts = [ids[:9], ids[9:]]
    streams = [(np.array(prompt), np.zeros(len(prompt), bool)) for prompt in prompts]
    expected = policy.logits(Pack.of(streams).to(policy.device))[[8, 15]].float()
    try:
        readings = read(policy, prompts)
        writing = Writing(policy, GenerationConfig(max_tokens=1), set(), readings[0], 2, 10)
        for row, prompt in enumerate(readings):
            writing.begin(row, prompt)
        found = writing.logits()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        log.info("%s: answers are written by transformers' generate: %s", type(policy.inner).__name__, error)
        return False
    bound = 1e-3 if policy.inner.dtype == torch.float32 else 0.1
    return bool(((found - expected).norm(dim=-1) <= bound * expected.norm(dim=-1)).all())
