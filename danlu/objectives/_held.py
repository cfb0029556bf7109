"""Objectives whose loss holds each token to the reference. T: tokens of a pack."""

from torch import Tensor

from danlu.data.packing import Pack
from danlu.objectives._answers import REFERENCE, told
from danlu.objectives._clipped import Clipped, Metrics


class Held(Clipped):
    """The divergence from the reference is a term of the loss, `beta` times k3: http://joschu.net/blog/kl-approx.html"""

    unbiased_divergence: bool = True
    """weigh it by the ratio, so that its gradient is that of the divergence itself: arXiv:2512.02556"""

    def held(self, losses_T: Tensor, logps_T: Tensor, log_ratios_T: Tensor, pack: Pack) -> tuple[Tensor, Metrics]:
        """A plan, which is told nothing, reckons with a reference that is the policy."""
        if not self.beta:
            return losses_T, {}
        reference_T = told(pack, REFERENCE)
        behind_T = (logps_T.detach() if reference_T is None else reference_T) - logps_T
        divergence_T = behind_T.exp() - behind_T - 1
        told_kl = (divergence_T.detach() * pack.weights).sum(), float(pack.weights.sum())
        if self.unbiased_divergence:
            divergence_T = divergence_T * log_ratios_T.exp()
        return losses_T + self.beta * divergence_T, {"kl": told_kl}
