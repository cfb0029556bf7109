"""A run over answers that the policy writes itself: they are written, judged, and kept until they are learnt.

N: prompts of a step, G: answers to each.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from danlu.core.errors import RewardError, UserError
from danlu.data.loader import Step
from danlu.data.packing import Pack
from danlu.generate.pieces import decode
from danlu.generate.writers.base import Desk, Draft
from danlu.objectives._answers import ADVANTAGES, LOGPS, REFERENCE, Ask, Row, asks_in, packs_of, tell
from danlu.objectives._rolled import Rolled
from danlu.objectives._rollout import Rollout, facts_of, samples_of, waited_for
from danlu.objectives.base import Learning, Loss, Models, Words
from danlu.rewards import Reward, rewards
from danlu.rewards.base import Answer, Court, Judge, judged
from danlu.tokens.templates.base import stop_ids

PENDING, KEPT = "rollout", "kept"
"""under which a cursor has the answers that are not learnt from to the end, and what later steps need"""
DRIFT = "drift"
"""how far a policy is from the one that wrote, in nats a token"""


class Rolling(Learning):
    """Who writes, who judges, and the answers that a checkpoint has kept."""

    def __init__(self, objective: Rolled, models: Models, words: Words) -> None:
        super().__init__(objective, models)
        self.rolled, self.policy, self.ranks = objective, models["policy"], words.ranks
        self.court = Court(words.tokenizer, self.policy.device, words.pack_tokens, self.policy)
        self.judges = opened(objective.rewards, self.court)
        stops = stop_ids(words.tokenizer, words.template)
        self.write = objective.writer.open(
            Desk(self.policy, words.adapter, words.tokenizer, stops, words.folder, words.ranks)
        )
        self.pending: dict[str, Any] | None = None
        self.far = False
        """whether the policy is too far from the one that wrote"""

    measures_together = True

    def restore(self, cursor: dict[str, Any]) -> None:
        """Answers that a checkpoint has kept are learnt from to the end."""
        self.pending = cursor.get(PENDING)
        self.remember(cursor.get(KEPT, {}))

    def remember(self, kept: dict[str, Any]) -> None:
        """Take what `kept` has given."""

    def kept(self) -> dict[str, Any]:
        """What changes with each rollout and later ones need, as JSON."""
        return {}

    def steps(self, loader: Iterable[Step]) -> Iterator[Step]:
        """Answers to each step's prompts, as many times as there are passes."""
        if self.pending is not None:
            kept, self.pending = self.pending, None
            rows = [Row(**row) for row in kept["rows"]]
            step = Step([], kept["epoch"], kept["cursor"], kept["facts"])
            yield from self._passes(rows, step, kept["order"], kept["made"])
        for step in loader:
            order = int(torch.randint(1 << 31, ())) if self.rolled.minibatches > 1 else 0
            rollout = self.roll(asks_in(step.packs), self.rolled.group, self._limit())
            rows = self.rows(rollout)
            if kept := self.kept():
                step.cursor = step.cursor | {KEPT: kept}
            step.facts = step.facts | self.facts(rollout, rows)
            news = replace(step, samples=samples_of(rollout, rows), waited=waited_for(rollout))
            yield from self._passes(rows, news, order)

    def _passes(self, rows: list[Row], step: Step, order: int, made: int = 0) -> Iterator[Step]:
        """Until the last step, a cursor keeps the answers: the weights that wrote them are gone."""
        parts = [part for number in range(self.rolled.passes) for part in self._parts(rows, order + number)]
        self.far = False
        for number, part in enumerate(parts[made:], made + 1):
            cursor = step.cursor
            if number < len(parts):
                told = {"epoch": step.epoch, "cursor": step.cursor, "facts": step.facts, "order": order, "made": number}
                cursor = cursor | {PENDING: told | {"rows": [row.to_json() for row in rows]}}
            news = step if number == 1 else replace(step, samples=[], waited={})
            yield replace(news, packs=packs_of(part, self.court.pack_tokens), cursor=cursor)
            if self.far:
                return

    def _parts(self, rows: list[Row], order: int) -> list[list[Row]]:
        """The mini-batches of a pass."""
        count = min(self.rolled.minibatches, len(rows))
        if count == 1:
            return [rows]
        drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(order))
        return [counting([rows[n] for n in part.tolist()]) for part in drawn.tensor_split(count)]

    def learnt(self, step: Step, metrics: Mapping[str, float]) -> None:
        """Where the policy is further from the one that wrote than it may be, these answers are done with."""
        self.write.learnt()
        limit = self.rolled.target_kl
        if limit is not None and metrics.get(DRIFT, 0.0) > limit:
            self.far = True
            step.cursor = {key: value for key, value in step.cursor.items() if key != PENDING}

    def close(self) -> None:
        """Nothing more is written."""
        self.write.close()

    def _limit(self) -> int:
        """The longest answer of a step."""
        least, most = self.rolled.limit_from, self.rolled.max_tokens
        return most if least is None else int(torch.randint(least, most + 1, ()))

    def roll(self, asks: Sequence[Ask], count: int, limit: int) -> Rollout:
        """Write answers and have them judged. Chance comes from torch's generator, which the step has seeded."""
        self._check_room(asks)
        began = time.perf_counter()
        groups = self.write([ask.ids for ask in asks], count, self.rolled.sampling(limit))
        wrote = time.perf_counter()
        answers = [self._answer(ask, draft) for ask, drafts in zip(asks, groups, strict=True) for draft in drafts]
        parts = self.judged(answers)
        weights = {name: weight for name, weight, _ in self.judges}
        total = sum(weights[name] * torch.tensor(part, dtype=torch.float64) for name, part in parts.items())
        assert isinstance(total, Tensor)
        seconds = {"writing": wrote - began, "judging": time.perf_counter() - wrote}
        drafts = [draft for group in groups for draft in group]
        told = {} if self.write.behind is None else {"steps_behind": float(self.write.behind)}
        return Rollout(list(asks), answers, total.reshape(-1, count), parts, drafts, seconds, told)

    def judged(self, answers: Sequence[Answer]) -> dict[str, list[float]]:
        """What each judge gives each answer; every process asks for its share of them, once."""
        own, problem = self.ranks.share(answers), None
        parts: dict[str, list[float]] = {name: [] for name, _, _ in self.judges}
        try:
            with self.policy.gathered():  # a judge may be an adapter beside the policy's
                parts |= {name: judged(name, judge, own) for name, _, judge in self.judges if own}
        except RewardError as error:
            problem = error
        told = self.ranks.gather((parts, problem and str(problem)))
        others = next((words for _, words in told if words is not None), None)
        if others is not None:
            raise problem or RewardError(others)
        return {name: self.ranks.dealt([each[name] for each, _ in told]) for name in parts}

    def told(self, rows: list[Row], values: Callable[[Pack], dict[str, Tensor]]) -> None:
        """Let rows know numbers of each of their tokens; every process works out those of its share."""
        own = self.ranks.share(rows)
        with self.policy.gathered():
            tell(own, self.court.pack_tokens, values)
        every = self.ranks.dealt(self.ranks.gather([row.told for row in own]))
        for row, told in zip(rows, every, strict=True):
            row.told = told

    def rows(self, rollout: Rollout) -> list[Row]:
        """What is learnt from each answer."""
        count = rollout.rewards_NG.shape[1]
        segments = [ask.segment for ask in rollout.asks for _ in range(count)]
        rows = [
            Row(answer.prompt_ids, answer.ids, segment.source, segment.file, segment.row)
            for answer, segment in zip(rollout.answers, segments, strict=True)
        ]
        finished = [answer.finish == "stop" for answer in rollout.answers]
        for row, stopped in zip(rows, finished, strict=True):  # a step that counts nothing has no mean
            row.counts = stopped or self.rolled.learn_cut_off or not any(finished)
        self.tell(rows)
        self.correct(rollout, rows)
        for row, advantages in zip(rows, self.credit(rollout, rows), strict=True):
            row.told[ADVANTAGES] = advantages
        for row, stopped in zip(rows, finished, strict=True):
            if not (self.rolled.learn_cut_off or stopped):
                row.told[ADVANTAGES] = [0.0] * len(row.ids)
        return rows

    def tell(self, rows: list[Row]) -> None:
        """What the policy and the reference think of each token."""
        if self.rolled.samples_logps:
            self.told(rows, lambda pack: {LOGPS: self.rolled.logps(self.policy, pack)})
        self.tell_reference(rows)

    def tell_reference(self, rows: list[Row]) -> None:
        """What the reference thinks of each token, where the policy is held to one."""
        rolled, policy = self.rolled, self.policy
        if rolled.beta:
            with rolled.as_reference(policy):
                self.told(rows, lambda pack: {REFERENCE: rolled.logps(policy, pack)})

    def correct(self, rollout: Rollout, rows: list[Row]) -> None:
        """How tokens count that others than the policy have drawn, where they say how likely those were."""
        correction, drawn = self.rolled.correction, [draft.logps for draft in rollout.drafts]
        if correction is None or all(logps is None for logps in drawn):
            return
        known = LOGPS in rows[0].told
        if not known:
            self.told(rows, lambda pack: {LOGPS: self.rolled.logps(self.policy, pack)})
        rollout.told |= correction.correct(rows, drawn)
        for row in rows if not known else ():
            del row.told[LOGPS]  # in the only step the policy is still what they are of

    def credit(self, rollout: Rollout, rows: list[Row]) -> list[list[float]]:
        """Each answer's tokens' advantages."""
        return self.rolled.credit(rollout.rewards_NG, rows)

    def facts(self, rollout: Rollout, rows: list[Row]) -> dict[str, float]:
        """What is told of a step's answers."""
        return facts_of(rollout) | rollout.told

    def measure(self, pack: Pack) -> Loss:
        """Held-out prompts: the reward of an answer to each, by the same chance every time; the loss is minus it."""
        devices = [self.policy.device] if self.policy.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            rollout = self.roll(asks_in([pack]), 1, self.rolled.max_tokens)
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


def counting(rows: list[Row]) -> list[Row]:
    """Some answers of which at least one counts: a step that counts nothing has no mean."""
    return rows if any(row.counts for row in rows) else [replace(row, counts=True) for row in rows]
