"""Next-token prediction on every token of plain text: continual pre-training, or training from scratch."""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from danlu.data.packing import Pack
from danlu.models.policy import Likelihood
from danlu.objectives.base import Loss, Models, Objective
from danlu.samples import Conversation, Document


class Pretrain(Objective):
    """Predict each next token; perplexity is exp(loss)."""

    learns_from = (Document, Conversation)

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """share of each target that is spread over the vocabulary"""
    z_loss: NonNegativeFloat = 0.0
    """weight of the squared log-normaliser, which keeps logits small (1e-4 is usual)"""
    embedding_noise: NonNegativeFloat = 0.0
    """NEFTune's alpha: noise on the embeddings while training (5 is usual)"""

    def loss(self, models: Models, pack: Pack) -> Loss:
        """Weighted negative log-likelihood of the targets, and the sum of their weights."""
        found = models["policy"].likelihood(pack, embedding_noise=self.embedding_noise)
        losses_T = self.token_losses(found)
        count = float(pack.on_host.weights.sum())
        return Loss((losses_T * pack.weights).sum(), count, by_source(-found.logps, pack))

    def measure(self, models: Models, pack: Pack) -> Loss:
        """Plain negative log-likelihood, without smoothing, z-loss or noise."""
        logps_T = models["policy"].logprobs(pack)
        return Loss(-(logps_T * pack.weights).sum(), float(pack.on_host.weights.sum()))

    def token_losses(self, found: Likelihood) -> Tensor:
        """[T] loss of each token; zero where nothing is trained."""
        smooth = self.label_smoothing
        losses_T = -((1 - smooth) * found.logps + smooth * found.averages)
        return losses_T + self.z_loss * found.normalizers**2 if self.z_loss else losses_T


def by_source(losses_T: Tensor, pack: Pack) -> dict[str, tuple[Tensor | float, float]]:
    """Negative log-likelihood of each source's tokens, as sums and counts, when a pack holds several."""
    counts: dict[str, float] = {}
    for segment, weights in zip(pack.segments, pack.on_host.weights.split(pack.lengths), strict=True):
        counts[segment.source] = counts.get(segment.source, 0.0) + float(weights.sum())
    losses_T = losses_T.detach() * pack.weights
    if len(counts) < 2:
        return {f"loss/{source}": (losses_T.sum(), count) for source, count in counts.items()}
    numbers = {source: number for number, source in enumerate(counts)}
    of_segments = torch.tensor([numbers[segment.source] for segment in pack.segments])
    of_tokens = of_segments.repeat_interleave(torch.tensor(pack.lengths)).to(losses_T.device, non_blocking=True)
    totals = losses_T.new_zeros(len(counts)).index_add_(0, of_tokens, losses_T).unbind()
    return {f"loss/{source}": (totals[number], counts[source]) for source, number in numbers.items()}
