"""Proximal Policy Optimization: https://arxiv.org/abs/1707.06347, of language models https://arxiv.org/abs/1909.08593"""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from danlu.data.packing import IGNORED, Pack
from danlu.models.critic import Critic
from danlu.objectives._advantage import Running, estimated, explained, whitened
from danlu.objectives._answers import LOGPS, Row, told
from danlu.objectives._kl_control import corrected
from danlu.objectives._penalised import Penalised
from danlu.objectives._rolling import Rolling
from danlu.objectives._rollout import Rollout
from danlu.objectives.base import Builder, Loss, Models, Words

VALUES, RETURNS = "values", "returns"
"""[n] of each segment: what was expected from each token on when it was rolled out; what came, as far as known"""


class PPO(Penalised):
    """A token's advantage is how much better things went than a critic, learning beside the policy, expected."""

    group: PositiveInt = 1
    """answers to each prompt"""
    beta: NonNegativeFloat = 0.05
    """how much each token's divergence from the reference costs, in rewards a nat; 0 needs no reference"""
    kl_controller: Literal["fixed", "adaptive"] = "fixed"
    """adaptive changes beta so that answers come to be kl_target from the reference: arXiv:1909.08593"""
    kl_target: PositiveFloat = 6.0
    """nats an answer, for kl_controller: adaptive"""
    kl_horizon: PositiveInt = 10_000
    """answers over which it corrects an error, for kl_controller: adaptive"""
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    """what a reward is worth one token earlier"""
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95
    """advantages trust values at 0, and returns at 1: arXiv:1506.02438"""
    whiten: bool = True
    """advantages in deviations from their mean over all tokens of a step"""
    value_weight: NonNegativeFloat = 0.1
    """what the critic's loss counts beside the policy's"""
    value_clip: PositiveFloat | None = 0.2
    """how far a value may move from what it was when rolled out before moving further is no gain; null is any"""
    reward_baseline: float = 0.0
    """taken from each reward first"""
    reward_scale: bool = False
    """divide rewards by the deviation of all so far"""
    reward_clip: PositiveFloat | None = None
    """rewards further than this from 0 count as this far; null is any"""
    no_end_penalty: NonNegativeFloat = 0.0
    """taken last from the reward of an answer that the limit cut off"""

    @property
    def samples_logps(self) -> bool:
        """One forward gives them and the values."""
        return True

    def models(self, build: Builder) -> Models:
        """A policy, and a critic on its hidden states."""
        models = super().models(build)
        return {**models, "critic": Critic(models["policy"])}

    def begin(self, models: Models, words: Words) -> "Proximal":
        """Open the judges and the writer; the controller begins at beta."""
        return Proximal(self, models, words)

    @torch.no_grad()
    def expected(self, models: Models, pack: Pack) -> dict[str, Tensor]:
        """[T] log-probabilities and values as they are now, nothing dropped out."""
        policy = models["policy"]
        training = policy.training
        policy.eval()
        try:
            logps_T, values_T = self.read(models, pack.to(policy.device))
        finally:
            policy.train(training)
        return {LOGPS: logps_T.cpu(), VALUES: values_T.cpu()}

    def read(self, models: Models, pack: Pack) -> tuple[Tensor, Tensor]:
        """[T], [T] fp32 log-probability of each trained token, and what is expected from it on; 0 elsewhere."""
        assert "critic" in models, "PPO computes with the models that it has asked for"
        hidden_TH = models["policy"].hidden(pack)
        logps_T = models["policy"].likelihood_of(hidden_TH, pack, temperature=self.temperature).logps
        trained = (pack.on_host.targets != IGNORED).nonzero()[:, 0].to(hidden_TH.device, non_blocking=True)
        values_N = models["critic"].values(hidden_TH[trained])
        return logps_T, torch.zeros_like(logps_T).index_copy(0, trained, values_N)

    def loss(self, models: Models, pack: Pack) -> Loss:
        """The policy's and the critic's, each a mean over the step's tokens."""
        logps_T, values_T = self.read(models, pack)
        loss = self.loss_of(logps_T, pack)
        before_T, returns_T = told(pack, VALUES), told(pack, RETURNS)
        if before_T is None or returns_T is None:  # a plan is told nothing
            before_T = returns_T = torch.zeros_like(values_T)
        errors_T, clipped_T = self.errors(values_T, before_T, returns_T)
        value_loss = (errors_T * pack.weights).sum()
        loss.metrics["policy_loss"] = (loss.total.detach(), loss.count)
        loss.metrics["value_loss"] = (value_loss.detach(), loss.count)
        loss.metrics["values_clipped"] = ((clipped_T * pack.weights).sum(), loss.count)
        return Loss(loss.total + self.value_weight * value_loss, loss.count, loss.metrics)

    def errors(self, values: Tensor, before: Tensor, returns: Tensor) -> tuple[Tensor, Tensor]:
        """Half the squared error of each value, the larger one with and without clipping; and where that was it."""
        errors = (values - returns) ** 2
        if self.value_clip is None:
            return errors / 2, torch.zeros_like(errors)
        near = before + (values - before).clamp(-self.value_clip, self.value_clip)
        clipped = (near - returns) ** 2
        return torch.maximum(errors, clipped) / 2, clipped > errors


class Proximal(Rolling):
    """A run: rewards become returns and advantages when answers are rolled out, by the values of then."""

    def __init__(self, objective: PPO, models: Models, words: Words) -> None:
        super().__init__(objective, models, words)
        self.ppo, self.beta, self.rewards = objective, objective.beta, Running()
        self.last: dict[str, float] = {}

    def remember(self, kept: dict[str, Any]) -> None:
        """Where the controller and the rewards' deviation stood."""
        if kept:
            self.beta, self.rewards = kept["beta"], Running(**kept["rewards"])

    def kept(self) -> dict[str, Any]:
        """The same, as JSON."""
        return {"beta": self.beta, "rewards": self.rewards.to_json()}

    def tell(self, rows: list[Row]) -> None:
        """Values come with the log-probabilities."""
        self.told(rows, lambda pack: self.ppo.expected(self.models, pack))
        self.tell_reference(rows)

    def credit(self, rollout: Rollout, rows: list[Row]) -> list[list[float]]:
        """Generalised advantages of the answers that count, and the returns that their values should have been."""
        ppo, beta = self.ppo, self.beta
        worth = self.worth(rollout)
        divergences = [ppo.divergences(row) for row in rows]
        advantages: list[Tensor] = []
        for row, reward, divergence in zip(rows, worth, divergences, strict=True):
            values, rewards = torch.tensor(row.told[VALUES], dtype=torch.float64), -beta * divergence
            rewards[-1] += reward
            advantages.append(estimated(rewards, values, ppo.gamma, ppo.lam))
            row.told[RETURNS] = (advantages[-1] + values).tolist()
        self.last = {"kl_coefficient": beta, "kl": float(sum(one.sum() for one in divergences)) / len(rows)}
        if ppo.kl_controller == "adaptive":
            self.beta = corrected(beta, self.last["kl"], ppo.kl_target, len(rows) / ppo.kl_horizon)
        if ppo.whiten:
            counting = iter(whitened([one for one, row in zip(advantages, rows, strict=True) if row.counts]))
            advantages = [next(counting) if row.counts else one for one, row in zip(advantages, rows, strict=True)]
        return [one.tolist() for one in advantages]

    def worth(self, rollout: Rollout) -> list[float]:
        """Each answer's reward as it is learnt from."""
        ppo = self.ppo
        worth = rollout.rewards_NG.flatten() - ppo.reward_baseline
        if ppo.reward_scale:
            self.rewards.add(worth)
            worth = worth / self.rewards.deviation
        if ppo.reward_clip is not None:
            worth = worth.clamp(-ppo.reward_clip, ppo.reward_clip)
        cut_off = torch.tensor([answer.finish == "length" for answer in rollout.answers])
        return (worth - ppo.no_end_penalty * cut_off).tolist()

    def facts(self, rollout: Rollout, rows: list[Row]) -> dict[str, float]:
        """What is told of a step's answers; how good the values were."""
        values, returns = (
            torch.tensor([one for row in rows for one in row.told[name]], dtype=torch.float64)
            for name in (VALUES, RETURNS)
        )
        spread = {"returns_mean": float(returns.mean()), "returns_std": float(returns.std(correction=0))}
        return super().facts(rollout, rows) | self.last | spread | {"explained_variance": explained(values, returns)}
