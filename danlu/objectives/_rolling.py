"""A run over answers that the policy writes itself: they are written, judged, and kept until they are learnt.

N: prompts of a step, G: answers to each.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from danlu.core.errors import UserError
from danlu.data.loader import Step
from danlu.data.packing import Pack
from danlu.generate.pieces import decode
from danlu.generate.writers.base import Draft
from danlu.objectives._answers import ADVANTAGES, LOGPS, REFERENCE, Ask, Row, asks_in, packs_of, tell
from danlu.objectives._rolled import Rolled
from danlu.objectives._rollout import Rollout, facts_of, samples_of, waited_for
from danlu.objectives.base import Learning, Loss, Models, Words
from danlu.rewards import Reward, rewards
from danlu.rewards.base import Answer, Court, Judge, judged
from danlu.tokens.templates.base import stop_ids

PENDING = "rollout"
"""under which a cursor keeps the answers that are not learnt from to the end"""


class Rolling(Learning):
    """Who writes, who judges, and the answers that a checkpoint has kept."""

    def __init__(self, objective: Rolled, models: Models, words: Words) -> None:
        super().__init__(objective, models)
        self.rolled, self.policy = objective, models["policy"]
        self.court = Court(words.tokenizer, self.policy.device, words.pack_tokens)
        self.judges = opened(objective.rewards, self.court)
        self.write = objective.writer.open(self.policy, stop_ids(words.tokenizer, words.template))
        self.pending: dict[str, Any] | None = None

    def restore(self, cursor: dict[str, Any]) -> None:
        """Answers that a checkpoint has kept are learnt from to the end."""
        self.pending = cursor.get(PENDING)

    def steps(self, loader: Iterable[Step]) -> Iterator[Step]:
        """Answers to each step's prompts, as many times as there are passes."""
        if self.pending is not None:
            kept, self.pending = self.pending, None
            rows = [Row(**row) for row in kept["rows"]]
            yield from self._passes(rows, Step([], kept["epoch"], kept["cursor"], kept["facts"]), kept["made"])
        for step in loader:
            rollout = self.roll(asks_in(step.packs), self.rolled.group)
            rows = self.rows(rollout)
            step.facts = step.facts | facts_of(rollout)
            yield from self._passes(rows, replace(step, samples=samples_of(rollout, rows), waited=waited_for(rollout)))

    def _passes(self, rows: list[Row], step: Step, made: int = 0) -> Iterator[Step]:
        """Until the last one, a cursor keeps the answers: the weights that wrote them are gone."""
        for number in range(made + 1, self.rolled.passes + 1):
            cursor = step.cursor
            if number < self.rolled.passes:
                told = {"epoch": step.epoch, "cursor": step.cursor, "facts": step.facts, "made": number}
                cursor = cursor | {PENDING: told | {"rows": [row.to_json() for row in rows]}}
            news = step if number == 1 else replace(step, samples=[], waited={})
            yield replace(news, packs=packs_of(rows, self.court.pack_tokens), cursor=cursor)

    def roll(self, asks: Sequence[Ask], count: int) -> Rollout:
        """Write answers and have them judged. Chance comes from torch's generator, which the step has seeded."""
        self._check_room(asks)
        began = time.perf_counter()
        groups = self.write([ask.ids for ask in asks], count, self.rolled.sampling)
        wrote = time.perf_counter()
        answers = [self._answer(ask, draft) for ask, drafts in zip(asks, groups, strict=True) for draft in drafts]
        parts = {name: judged(name, judge, answers) for name, _, judge in self.judges}
        weights = {name: weight for name, weight, _ in self.judges}
        total = sum(weights[name] * torch.tensor(part, dtype=torch.float64) for name, part in parts.items())
        assert isinstance(total, Tensor)
        seconds = {"writing": wrote - began, "judging": time.perf_counter() - wrote}
        drafts = [draft for group in groups for draft in group]
        return Rollout(list(asks), answers, total.reshape(-1, count), parts, drafts, seconds)

    def rows(self, rollout: Rollout) -> list[Row]:
        """What is learnt from each answer."""
        rolled, policy, capacity = self.rolled, self.policy, self.court.pack_tokens
        count = rollout.rewards_NG.shape[1]
        segments = [ask.segment for ask in rollout.asks for _ in range(count)]
        rows = [
            Row(answer.prompt_ids, answer.ids, segment.source, segment.file, segment.row)
            for answer, segment in zip(rollout.answers, segments, strict=True)
        ]
        if rolled.samples_logps:
            tell(rows, LOGPS, capacity, lambda pack: rolled.logps(policy, pack))
        if rolled.beta:
            with rolled.as_reference(policy):
                tell(rows, REFERENCE, capacity, lambda pack: rolled.logps(policy, pack))
        finished = [answer.finish == "stop" for answer in rollout.answers]
        for row, advantages in zip(rows, rolled.credit(rollout.rewards_NG, rows), strict=True):
            row.told[ADVANTAGES] = advantages
        for row, stopped in zip(rows, finished, strict=True):
            if not (rolled.learn_cut_off or stopped):
                row.counts = not any(finished)  # a step that counts nothing has no mean
                row.told[ADVANTAGES] = [0.0] * len(row.ids)
        return rows

    def measure(self, pack: Pack) -> Loss:
        """Held-out prompts: the reward of an answer to each, by the same chance every time; the loss is minus it."""
        devices = [self.policy.device] if self.policy.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            rollout = self.roll(asks_in([pack]), 1)
        count, total = len(rollout.answers), rollout.rewards_NG.sum()
        parts = {f"reward/{name}": (float(sum(part)), count) for name, part in rollout.parts.items()}
        return Loss(-total, count, {"reward": (total, count), **parts})

    def _check_room(self, asks: Sequence[Ask]) -> None:
        limit = self.policy.inner.config.get_text_config().to_dict().get("max_position_embeddings")
        longest, most = max(asks, key=lambda ask: len(ask.ids)), self.rolled.max_tokens
        if limit is not None and len(longest.ids) + most > limit:
            raise UserError(
                f"{longest.segment.where}: {len(longest.ids):,} tokens and an answer of {most:,} are more "
                f"than the {limit:,} that the model can read; lower objective.max_tokens or data.max_length"
            )

    def _answer(self, ask: Ask, draft: Draft) -> Answer:
        tokenizer = self.court.tokenizer
        expected = None if ask.expected is None else decode(tokenizer, ask.expected)
        words = draft.ids[:-1] if draft.finish == "stop" else draft.ids
        prompt, text = decode(tokenizer, ask.ids), decode(tokenizer, words)
        return Answer(prompt, text, expected, draft.finish, ask.ids, draft.ids, ask.segment.where)


def opened(chosen: Sequence[Reward], court: Court) -> list[tuple[str, float, Judge]]:
    """Each judge with its name and weight."""
    judges: list[tuple[str, float, Judge]] = []
    for number, reward in enumerate(chosen):
        name = rewards.name_of(reward)
        twice = any(rewards.name_of(other) == name for other in chosen[:number])
        judges.append((f"{name}_{number + 1}" if twice else name, reward.weight, reward.open(court)))
    return judges
