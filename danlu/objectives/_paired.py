"""Objectives over pairs of answers. P: pairs of a pack, S: its segments."""

from dataclasses import dataclass

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from danlu.data.packing import Pack
from danlu.models.policy import Policy
from danlu.objectives._compared import compared, pairs_of, sizes_of, sums_of
from danlu.objectives._referenced import Referenced
from danlu.objectives.base import Loss, Models, Objective
from danlu.samples import PreferencePair


@dataclass(slots=True)
class Answers:
    """All [S]: rewards are what is compared; averages the mean log-probability of an answer's tokens."""

    rewards: Tensor
    logps: Tensor
    averages: Tensor


class Paired(Objective):
    """A loss of each pair, by its answers' rewards; and, by option, the likelihood of the better answers."""

    learns_from = (PreferencePair,)

    beta: PositiveFloat = 0.1
    """what rewards are multiplied by"""
    sft_weight: NonNegativeFloat = 0.0
    """weight of the better answers' negative log-likelihood, each divided by its tokens: arXiv:2404.19733"""

    def answers_in(self, policy: Policy, pack: Pack) -> Answers:
        """Rewards and likelihoods of a pack's answers."""
        raise NotImplementedError

    def losses(self, better: Tensor, worse: Tensor) -> Tensor:
        """[P] the loss of each pair, of the rewards of both its answers."""
        raise NotImplementedError

    def loss(self, models: Models, pack: Pack) -> Loss:
        """Summed over pairs, which are what is counted."""
        answers = self.answers_in(models["policy"], pack)
        better, worse = pairs_of(pack)
        rewards = answers.rewards
        losses_P = self.losses(rewards[better], rewards[worse])
        if self.sft_weight:
            losses_P = losses_P - self.sft_weight * answers.averages[better]
        delta_P = (rewards[better] - rewards[worse]).detach()
        told = {"rewards": rewards, "logps": answers.logps}
        metrics = compared(delta_P)
        for name, values in told.items():
            metrics[f"{name}/chosen"] = (values[better].detach().sum(), len(better))
            metrics[f"{name}/rejected"] = (values[worse].detach().sum(), len(better))
        return Loss(losses_P.sum(), len(better), metrics, {"delta": delta_P})


class ReferenceFree(Paired):
    """Rewards are beta times the answers' own log-probabilities, or the means of their tokens'."""

    length_normalized: bool = False
    """rewards are means over an answer's tokens instead of sums"""

    def answers_in(self, policy: Policy, pack: Pack) -> Answers:
        """No other model is asked."""
        logps_S = sums_of(policy.logprobs(pack), pack)
        averages_S = logps_S / sizes_of(pack)
        return Answers(self.beta * (averages_S if self.length_normalized else logps_S), logps_S, averages_S)


class PairedToReference(Referenced, Paired):
    """Rewards are beta times how much likelier an answer is than under the reference."""

    length_normalized: bool = False
    """rewards are means over an answer's tokens instead of sums"""

    def answers_in(self, policy: Policy, pack: Pack) -> Answers:
        """The reference first: see `computed_logps`."""
        reference_S = self.reference_logps(policy, pack)
        logps_S = sums_of(policy.logprobs(pack), pack)
        sizes_S = sizes_of(pack)
        ratios_S = logps_S - reference_S
        return Answers(
            self.beta * (ratios_S / sizes_S if self.length_normalized else ratios_S), logps_S, logps_S / sizes_S
        )
