"""Answers written side by side, each in a row of one key-value cache; where one has ended, the next one begins.

A prompt is read once, in a pack with others, and copied into the row of each of its answers. On a GPU a step is one
launch, captured beforehand: what the processor would take to launch a model's thousand kernels is more than they take.

B: rows, N: tokens of an answer at most, V: vocabulary.
"""

import logging
from collections.abc import Callable, Sequence
from itertools import islice
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from danlu.data.packing import Pack
from danlu.generate.base import GenerationConfig
from danlu.generate.rows import Prompt, Rows, packed, read
from danlu.models.kernels.slot_attention import Slots
from danlu.models.policy import Policy

log = logging.getLogger(__name__)

LOOK = 8
"""steps of a GPU between two looks at what has ended, each of which waits for it"""
TRIED: WeakKeyDictionary[Policy, bool] = WeakKeyDictionary()
"""which policies can be run token by token in rows, as far as anybody has asked"""
BELOW = 1 - 2.0**-23
"""a share of a sum, rounded, is never the sum"""
ROOM = 64
"""rows are as long as a multiple of this"""


class Writing:
    """Rows of answers that are being written. `chance_BN` in [0,1) is what each of their tokens is drawn by."""

    def __init__(
        self, policy: Policy, config: GenerationConfig, stops: set[int], like: Prompt, rows: int, room: int
    ) -> None:
        device = policy.device
        self.policy, self.config = policy, config
        self.stops = torch.tensor(sorted(stops), dtype=torch.long, device=device)
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
        self.chance_BN = torch.zeros(rows, config.max_tokens + LOOK, device=device)
        self.last = room - 1
        self.cache = Rows(like, rows, room, self.places_B)

    def begin(self, row: int, prompt: Prompt, chance_N: Tensor | None = None) -> None:
        """A row's next answer."""
        if chance_N is not None:
            self.chance_BN[row, : len(chance_N)] = chance_N * BELOW
        self.cache.begin(row, prompt)
        self.new_B[row], self.places_B[row], self.counts_B[row] = prompt.ids[-1], len(prompt.ids) - 1, 0
        self.ended_B[row] = False

    def logits(self) -> Tensor:
        """[B,V] fp32, of what follows each row's newest token."""
        hidden_BH = self.policy.body(
            input_ids=self.new_B[:, None],
            position_ids=self.places_B[:, None],
            segments=Slots(self.places_B),
            past_key_values=self.cache,
            use_cache=True,
        )[:, 0]
        return self.policy.head.logits(hidden_BH).float()

    def step(self) -> None:
        """One more token in each row; in those that have ended too, where nobody looks at it."""
        drawn_B = self.draw(self.logits())
        self.written_BN.scatter_(1, self.counts_B[:, None], drawn_B[:, None])
        self.counts_B.add_(1).clamp_(max=self.config.max_tokens + LOOK - 1)  # of a row that nobody looks at
        self.new_B.copy_(drawn_B)
        self.places_B.add_(1).clamp_(max=self.last)
        self.ended_B |= torch.isin(drawn_B, self.stops) | (self.counts_B >= self.config.max_tokens)

    def draw(self, logits_BV: Tensor) -> Tensor:
        """[B] The first token up to which probabilities add up to more than an answer's own chance."""
        if self.config.min_tokens:
            too_early_B = self.counts_B < self.config.min_tokens
            logits_BV[:, self.stops] = logits_BV[:, self.stops].masked_fill(too_early_B[:, None], -torch.inf)
        if not self.config.temperature:
            return logits_BV.argmax(-1)
        scores_BV = self.warp(self.new_B[:, None], logits_BV / self.config.temperature)  # type: ignore[arg-type]
        probabilities_BV = scores_BV.softmax(-1)
        sums_BV = probabilities_BV.cumsum(-1)
        bounds_B1 = self.chance_BN.gather(1, self.counts_B[:, None]) * sums_BV[:, -1:]
        return ((sums_BV > bounds_B1) & (probabilities_BV > 0)).int().argmax(-1)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone."""
        self.new_B, self.places_B, self.counts_B = self.new_B[rows], self.places_B[rows], self.counts_B[rows]
        self.ended_B, self.written_BN, self.chance_BN = (
            each[rows] for each in (self.ended_B, self.written_BN, self.chance_BN)
        )
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
    except torch.OutOfMemoryError:
        raise
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
    policy: Policy,
    prompts: Sequence[list[int]],
    count: int,
    config: GenerationConfig,
    stops: set[int],
    at_once: int,
    chance_AN: Tensor | None = None,
) -> list[list[int]]:
    """The ids of `count` answers to each prompt, in their order, with whatever was written behind a stop token.

    `chance_AN` in [0,1) decides each answer's tokens, whatever is written beside it; without, torch's own generator.
    """
    if chance_AN is None:
        chance_AN = torch.rand(len(prompts) * count, config.max_tokens)
    chance_AN = chance_AN.to(policy.device)
    readings = (one for some in packed(prompts) for one in read(policy, some))
    waiting = enumerate(one for one in readings for _ in range(count))
    first = list(islice(waiting, at_once))
    longest = max(len(prompt) for prompt in prompts) + config.max_tokens
    writing = Writing(policy, config, stops, first[0][1], len(first), -(-longest // ROOM) * ROOM)
    on_gpu = policy.device.type == "cuda"
    step = on_a_gpu(writing) if on_gpu else on_a_processor(writing)
    for row, (number, prompt) in enumerate(first):
        writing.begin(row, prompt, chance_AN[number])
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
                writing.begin(row, prompt, chance_AN[owners[row]])
        if owners and len(owners) <= len(writing.ended_B) // 2 and not on_gpu:  # a GPU's step would not be shorter
            writing.keep(torch.tensor(sorted(owners)))
            owners = {row: owners[old] for row, old in enumerate(sorted(owners))}
    return answers


@torch.no_grad()
def in_rows(policy: Policy) -> bool:
    """Whether a policy gives the same numbers token by token in rows as for a pack; found out once, by trying."""
    if policy not in TRIED:
        TRIED[policy] = policy.packed and gives_the_same(policy)
    return TRIED[policy]


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
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        log.info("%s: answers are written by transformers' generate: %s", type(policy.inner).__name__, error)
        return False
    bound = 1e-3 if policy.inner.dtype == torch.float32 else 0.1
    return bool(((found - expected).norm(dim=-1) <= bound * expected.norm(dim=-1)).all())
