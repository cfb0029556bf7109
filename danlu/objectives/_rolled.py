"""Objectives that learn from what the policy writes itself: answers to prompts are drawn, judged, and learnt from.

N: prompts of a step, G: answers to each, n: tokens of an answer.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from danlu.core.errors import MemoryLimit, UserError
from danlu.data.loader import Step
from danlu.data.packing import Pack
from danlu.generate.base import GenerationConfig
from danlu.generate.groups import groups
from danlu.generate.pieces import decode
from danlu.models.adapters.base import Adapter
from danlu.models.beginning import without_adapter
from danlu.models.policy import Policy
from danlu.objectives._answers import ADVANTAGES, LOGPS, REFERENCE, Ask, Row, asks_in, packs_of, tell
from danlu.objectives.base import Builder, Loss, Models, Objective, Words
from danlu.rewards import Reward
from danlu.rewards import rewards as kinds
from danlu.rewards.base import Answer, Court, Judge, judged
from danlu.samples import Conversation, Prompt
from danlu.tokens.templates.base import stop_ids

PENDING = "rollout"
"""under which a cursor keeps the answers that are not learnt from to the end"""


@dataclass(slots=True)
class Stage:
    """What a run sets up once: who judges, what ends an answer, and answers that a checkpoint has kept."""

    court: Court
    stops: set[int]
    judges: list[tuple[str, float, Judge]]
    pending: dict[str, Any] | None = None


@dataclass(slots=True)
class Rollout:
    """Answers in the order of their prompts, G to each; what they are worth in all, and by each judge."""

    asks: list[Ask]
    answers: list[Answer]
    rewards_NG: Tensor
    parts: dict[str, list[float]]


class Rolled(Objective):
    """Draws answers to the prompts of each step and lets rewards judge them."""

    learns_from = (Prompt, Conversation)

    rewards: Annotated[list[Annotated[Reward, kinds]], Field(min_length=1)]
    """what answers are worth: the sum of these, each times its weight"""
    group: Annotated[int, Field(ge=2)] = 8
    """answers to each prompt, which are compared with each other"""
    max_tokens: PositiveInt = 256
    """longest answer"""
    temperature: PositiveFloat = 1.0
    """how much chance there is in an answer; log-probabilities are those at this temperature"""
    passes: PositiveInt = 1
    """optimiser steps made from the same answers before new ones are written"""
    beta: NonNegativeFloat = 0.0
    """how strongly the policy is held to the reference; 0 needs none"""
    reference: Literal["beginning", "base"] = "beginning"
    """the policy as it began, of which only what learns is copied, or the base without its adapter"""
    learn_cut_off: bool = True
    """learn from answers that the limit has cut off too"""
    at_once: PositiveInt = 64
    """answers that are written together: memory and speed depend on it, and which ones are drawn"""

    @property
    def steps_per_batch(self) -> int:
        """Each pass is a step."""
        return self.passes

    @property
    def rows_made(self) -> int:
        """Each prompt becomes its answers."""
        return self.group

    @property
    def tokens_added(self) -> int:
        """To each prompt."""
        return self.max_tokens

    @property
    def samples_logps(self) -> bool:
        """Whether answers know their log-probability as they were drawn; in the first pass they are of this policy."""
        return self.passes > 1

    def refusal(self, adapter: Adapter, *, streaming: bool, quantized: bool) -> str | None:
        """A base needs an adapter beside it."""
        if self.beta and self.reference == "base" and not adapter.lies_beside:
            return "reference: base is the model without its adapter, and here there is none; say beginning"
        return "answers are written to prompts that are there before; leave data.streaming out" if streaming else None

    def models(self, build: Builder) -> Models:
        """A policy, which remembers how it began where it is held to that."""
        policy = build.policy()
        if self.beta and self.reference == "beginning":
            policy.remember()
        return {"policy": policy}

    def begin(self, models: Models, words: Words) -> None:
        """Open the judges."""
        policy = models["policy"]
        court = Court(words.tokenizer, policy.device, words.pack_tokens)
        judges: list[tuple[str, float, Judge]] = []
        for number, reward in enumerate(self.rewards):
            name = kinds.name_of(reward)
            twice = any(kinds.name_of(other) == name for other in self.rewards[:number])
            judges.append((f"{name}_{number + 1}" if twice else name, reward.weight, reward.open(court)))
        policy.beside = Stage(court, stop_ids(words.tokenizer, words.template), judges)

    def restore(self, models: Models, cursor: dict[str, Any]) -> None:
        """Answers that a checkpoint has kept are learnt from to the end."""
        stage_of(models).pending = cursor.get(PENDING)

    def steps(self, models: Models, loader: Iterable[Step]) -> Iterator[Step]:
        """Answers to each step's prompts, as many times as there are passes."""
        stage = stage_of(models)
        if stage.pending is not None:
            kept, stage.pending = stage.pending, None
            rows = [Row(**row) for row in kept["rows"]]
            yield from self._passes(rows, Step([], kept["epoch"], kept["cursor"], kept["facts"]), stage, kept["made"])
        for step in loader:
            rollout = self.roll(models, asks_in(step.packs), self.group)
            rows = self.rows(models, rollout)
            step.facts = step.facts | facts_of(rollout)
            yield from self._passes(rows, replace(step, samples=samples_of(rollout, rows)), stage, 0)

    def _passes(self, rows: list[Row], step: Step, stage: Stage, made: int) -> Iterator[Step]:
        """Until the last one, a cursor keeps the answers: the weights that wrote them are gone."""
        for number in range(made + 1, self.passes + 1):
            cursor = step.cursor
            if number < self.passes:
                told = {"epoch": step.epoch, "cursor": step.cursor, "facts": step.facts, "made": number}
                cursor = cursor | {PENDING: told | {"rows": [row.to_json() for row in rows]}}
            samples = step.samples if number == 1 else []
            yield replace(step, packs=packs_of(rows, stage.court.pack_tokens), cursor=cursor, samples=samples)

    def roll(self, models: Models, asks: Sequence[Ask], count: int) -> Rollout:
        """Write answers and have them judged. Chance comes from torch's generator, which the step has seeded."""
        policy, stage = models["policy"], stage_of(models)
        answers = [
            self._answer(ask, draft.ids, draft.finish, stage)
            for ask, drafts in zip(asks, self._written(policy, asks, count, stage), strict=True)
            for draft in drafts
        ]
        parts = {name: judged(name, judge, answers) for name, _, judge in stage.judges}
        weights = {name: weight for name, weight, _ in stage.judges}
        total = sum(weights[name] * torch.tensor(part, dtype=torch.float64) for name, part in parts.items())
        assert isinstance(total, Tensor)
        return Rollout(list(asks), answers, total.reshape(-1, count), parts)

    def rows(self, models: Models, rollout: Rollout) -> list[Row]:
        """What is learnt from each answer."""
        policy, capacity = models["policy"], stage_of(models).court.pack_tokens
        count = rollout.rewards_NG.shape[1]
        segments = [ask.segment for ask in rollout.asks for _ in range(count)]
        rows = [
            Row(answer.prompt_ids, answer.ids, segment.source, segment.file, segment.row)
            for answer, segment in zip(rollout.answers, segments, strict=True)
        ]
        if self.samples_logps:
            tell(rows, LOGPS, capacity, lambda pack: self.logps(policy, pack))
        if self.beta:
            with self._as_reference(policy):
                tell(rows, REFERENCE, capacity, lambda pack: self.logps(policy, pack))
        finished = [answer.finish == "stop" for answer in rollout.answers]
        for row, advantages in zip(rows, self.credit(rollout.rewards_NG, rows), strict=True):
            row.told[ADVANTAGES] = advantages
        for row, stopped in zip(rows, finished, strict=True):
            if not (self.learn_cut_off or stopped):
                row.counts = not any(finished)  # a step that counts nothing has no mean
                row.told[ADVANTAGES] = [0.0] * len(row.ids)
        return rows

    def credit(self, rewards_NG: Tensor, rows: Sequence[Row]) -> list[list[float]]:
        """Each answer's tokens' advantages: the answer's own, at all of them."""
        advantages = self.advantages(rewards_NG).flatten().tolist()
        return [[advantage] * len(row.ids) for advantage, row in zip(advantages, rows, strict=True)]

    def advantages(self, rewards_NG: Tensor) -> Tensor:
        """[N,G] float64: how much better an answer is than what is expected of its prompt."""
        raise NotImplementedError

    @torch.no_grad()
    def logps(self, policy: Policy, pack: Pack) -> Tensor:
        """[T] of the policy as it is now, nothing dropped out."""
        training = policy.training
        policy.eval()
        try:
            return policy.logprobs(pack.to(policy.device), temperature=self.temperature).cpu()
        finally:
            policy.train(training)

    def measure(self, models: Models, pack: Pack) -> Loss:
        """Held-out prompts: the reward of an answer to each, by the same chance every time; the loss is minus it."""
        policy = models["policy"]
        devices = [policy.device] if policy.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            rollout = self.roll(models, asks_in([pack]), 1)
        count, total = len(rollout.answers), rollout.rewards_NG.sum()
        parts = {f"reward/{name}": (float(sum(part)), count) for name, part in rollout.parts.items()}
        return Loss(-total, count, {"reward": (total, count), **parts})

    def _as_reference(self, policy: Policy) -> AbstractContextManager[None]:
        return without_adapter(policy.model) if self.reference == "base" else policy.beginning()

    def _written(self, policy: Policy, asks: Sequence[Ask], count: int, stage: Stage) -> list[list[Any]]:
        config = GenerationConfig(max_tokens=self.max_tokens, temperature=self.temperature)
        limit = policy.inner.config.get_text_config().to_dict().get("max_position_embeddings")
        longest = max(asks, key=lambda ask: len(ask.ids))
        if limit is not None and len(longest.ids) + self.max_tokens > limit:
            raise UserError(
                f"{longest.segment.where}: {len(longest.ids):,} tokens and an answer of {self.max_tokens:,} are more "
                f"than the {limit:,} that the model can read; lower objective.max_tokens or data.max_length"
            )
        prompts = [ask.ids for ask in asks]
        problem = None
        try:
            with policy.writing() as model:
                return groups(model, prompts, count, config, stage.stops, at_once=self.at_once)
        except torch.OutOfMemoryError as error:
            problem = str(error).partition("\n")[0]
        raise MemoryLimit(f"out of memory while answers were written ({problem}); lower objective.at_once")

    def _answer(self, ask: Ask, ids: list[int], finish: Any, stage: Stage) -> Answer:
        tokenizer = stage.court.tokenizer
        expected = None if ask.expected is None else decode(tokenizer, ask.expected)
        words = ids[:-1] if finish == "stop" else ids
        where = ask.segment.where
        return Answer(decode(tokenizer, ask.ids), decode(tokenizer, words), expected, finish, ask.ids, ids, where)


def stage_of(models: Models) -> Stage:
    """What the run has set up."""
    stage = models["policy"].beside
    assert isinstance(stage, Stage), "an objective that writes answers was not begun"
    return stage


def facts_of(rollout: Rollout) -> dict[str, float]:
    """What is told of a step's answers."""
    rewards_NG, answers = rollout.rewards_NG, rollout.answers
    alike = (rewards_NG == rewards_NG[:, :1]).all(dim=1)
    return {
        "reward": rewards_NG.mean().item(),
        "reward_std": rewards_NG.std(correction=0).item(),
        **{f"reward/{name}": sum(part) / len(part) for name, part in rollout.parts.items()},
        "alike": alike.double().mean().item(),
        "answer_tokens": sum(len(answer.ids) for answer in answers) / len(answers),
        "cut_off": sum(answer.finish == "length" for answer in answers) / len(answers),
    }


def samples_of(rollout: Rollout, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each answer for people to read."""
    rewards = rollout.rewards_NG.flatten().tolist()
    return [
        {
            "where": answer.where,
            "prompt": answer.prompt,
            "answer": answer.text,
            "expected": answer.expected,
            "finish": answer.finish,
            "tokens": len(answer.ids),
            "reward": reward,
            "rewards": {name: part[number] for name, part in rollout.parts.items()},
            "advantage": rows[number].told[ADVANTAGES][0],
        }
        for number, (answer, reward) in enumerate(zip(rollout.answers, rewards, strict=True))
    ]
