"""Binary Classifier Optimization, of single answers that are good or bad: https://arxiv.org/abs/2404.04656"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from danlu.data.packing import Pack
from danlu.models.policy import Policy
from danlu.objectives._compared import sums_of
from danlu.objectives._rated import Rated, goodness


class BCO(Rated):
    """A classifier of good and bad whose logit is an answer's reward, less the middle of both kinds' rewards."""

    shift: bool = True
    """measure rewards from the middle between the means of good and bad answers of the step; costs another forward"""

    def point(self, policy: Policy, packs: Sequence[Pack]) -> float:
        """The middle, of the kinds that there are."""
        if not self.shift:
            return 0.0
        sums = torch.zeros(2, 2, dtype=torch.float64)
        for pack in packs:
            pack = pack.to(policy.device)
            reference_S = self.reference_logps(policy, pack)
            rewards_S = self.beta * (sums_of(policy.logprobs(pack), pack) - reference_S)
            for kind, mask in enumerate((goodness(pack), 1 - goodness(pack))):
                sums[kind] += torch.stack([(rewards_S * mask).sum(), mask.sum()]).double().cpu()
        means = [total / count for total, count in sums.tolist() if count]
        return sum(means) / len(means)

    def losses(self, rewards: Tensor, points: Tensor, signs: Tensor) -> Tensor:
        """[S]"""
        return -logsigmoid(signs * (rewards - points))
