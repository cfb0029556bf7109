"""Objectives that hold a policy to a reference: the model it began as. S: segments of a pack."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from danlu.data.packing import Pack
from danlu.models.adapters.base import Adapter
from danlu.models.policy import Policy
from danlu.objectives._compared import facts_of, sums_of
from danlu.objectives.base import Builder, Models, Objective


class Referenced(Objective):
    """Learns how much likelier an answer is than under the reference."""

    beta: PositiveFloat = 0.1
    """how strongly the policy is held to the reference"""
    reference: Literal["beginning", "base", "precomputed"] = "beginning"
    """the policy as it began, of which only what learns is copied; the base without its adapter; or the first, worked
    out for every row before the first step and kept in the cache"""

    def models(self, build: Builder) -> Models:
        """A policy that remembers how it began."""
        policy = build.policy()
        if self.reference == "beginning":
            policy.remember()
        return {"policy": policy}

    @property
    def precomputes(self) -> bool:
        """Whether the reference is worked out before."""
        return self.reference == "precomputed"

    def refusal(self, adapter: Adapter, *, streaming: bool, quantized: bool) -> str | None:
        """A base needs an adapter beside it, and what is worked out before needs rows that are there before."""
        if self.reference == "base" and not adapter.lies_beside:
            return "reference: base is the model without its adapter, and here there is none; say beginning"
        if self.reference == "precomputed" and streaming:
            return "reference: precomputed needs every row before the first step, which data.streaming does not have"
        return None

    def reference_logps(self, policy: Policy, pack: Pack) -> Tensor:
        """[S] log-probability of each answer's trained tokens under the reference."""
        return facts_of(pack, "reference") if self.precomputes else self.computed_logps(policy, pack)

    @torch.no_grad()
    def computed_logps(self, policy: Policy, pack: Pack) -> Tensor:
        """[S] the same, computed now; call it before the policy's own, as the weights are exchanged meanwhile."""
        training = policy.training
        policy.eval()
        try:
            with self._as_reference(policy):
                return sums_of(policy.logprobs(pack), pack)
        finally:
            policy.train(training)

    def _as_reference(self, policy: Policy) -> AbstractContextManager[None]:
        if self.reference == "base":
            return policy.without_adapter()
        return policy.beginning() if self.reference == "beginning" else nullcontext()  # before the first step
