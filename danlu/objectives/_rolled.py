"""Objectives that learn from what the policy writes itself; `_rolling` is the run in which it is written and judged.

N: prompts of a step, G: answers to each.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from danlu.data.packing import Pack
from danlu.generate.base import GenerationConfig
from danlu.generate.writers import Writer, writers
from danlu.generate.writers.local import Local
from danlu.models.adapters.base import Adapter
from danlu.models.policy import Policy
from danlu.objectives._answers import Row
from danlu.objectives._correction import Correction
from danlu.objectives.base import Builder, Models, Objective
from danlu.rewards import Reward, rewards
from danlu.samples import Conversation, Prompt


class Rolled(Objective):
    """Draws answers to the prompts of each step and lets rewards judge them."""

    writes: ClassVar[bool] = True
    learns_from = (Prompt, Conversation)

    rewards: Annotated[list[Annotated[Reward, rewards]], Field(min_length=1)]
    """what answers are worth: the sum of these, each times its weight"""
    group: Annotated[int, Field(ge=2)] = 8
    """answers to each prompt, which are compared with each other"""
    max_tokens: PositiveInt = 256
    """longest answer"""
    min_tokens: NonNegativeInt = 0
    """shortest answer: nothing ends one before"""
    limit_from: PositiveInt | None = None
    """the longest answer of each step is drawn between this and max_tokens; null is always max_tokens"""
    temperature: PositiveFloat = 1.0
    """how much chance there is in an answer; log-probabilities are those at this temperature"""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """draw among the likeliest tokens that have this much of the probability together; ratios know nothing of it"""
    top_k: NonNegativeInt = 0
    """draw among this many of the likeliest tokens; 0 is all; ratios know nothing of it"""
    passes: PositiveInt = 1
    """how often the same answers are learnt from before new ones are written"""
    minibatches: PositiveInt = 1
    """optimiser steps of each pass, each over its share of the answers in an order by chance"""
    target_kl: PositiveFloat | None = None
    """write new answers once the policy is further than this from the one that wrote them, in nats a token (k3)"""
    beta: NonNegativeFloat = 0.0
    """how strongly the policy is held to the reference; 0 needs none"""
    reference: Literal["beginning", "base"] = "beginning"
    """the policy as it began, of which only what learns is copied, or the base without its adapter"""
    learn_cut_off: bool = True
    """learn from answers that the limit has cut off too"""
    writer: Annotated[Writer, writers] = Local()
    """who writes the answers"""
    correction: Correction | None = Correction()
    """how answers count that others than the policy of now have drawn: a server's weights and numerics"""

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        for name, length in (("min_tokens", self.min_tokens), ("limit_from", self.limit_from or 1)):
            if length > self.max_tokens:
                raise ValueError(f"{name} {length} is more than max_tokens {self.max_tokens}")
        if self.limit_from is not None and self.min_tokens > self.limit_from:
            raise ValueError(f"min_tokens {self.min_tokens} is more than limit_from {self.limit_from}")
        if self.target_kl is not None and self.steps_per_batch == 1:
            raise ValueError("target_kl ends passes early, and there is only one step; give passes or minibatches")
        return self

    @property
    def steps_per_batch(self) -> int:
        """Each mini-batch of each pass is a step."""
        return self.passes * self.minibatches

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
        return self.steps_per_batch > 1

    def refusal(self, adapter: Adapter, *, streaming: bool, quantized: bool) -> str | None:
        """A base needs an adapter beside it."""
        if self.beta and self.reference == "base" and not adapter.lies_beside:
            return "reference: base is the model without its adapter, and here there is none; say beginning"
        why = self.writer.refusal(adapter)
        if why:
            return why
        return "answers are written to prompts that are there before; leave data.streaming out" if streaming else None

    def models(self, build: Builder) -> Models:
        """A policy, which remembers how it began where it is held to that."""
        policy = build.policy()
        if self.beta and self.reference == "beginning":
            policy.remember()
        return {"policy": policy}

    def sampling(self, limit: int) -> GenerationConfig:
        """How answers are drawn that a limit cuts off."""
        return GenerationConfig(
            max_tokens=limit,
            min_tokens=self.min_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
        )

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

    def as_reference(self, policy: Policy) -> AbstractContextManager[None]:
        """Inside, the policy is what it is held to."""
        return policy.without_adapter() if self.reference == "base" else policy.beginning()
