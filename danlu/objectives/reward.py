"""A reward model: of two answers to one prompt, the better one has the higher score. Bradley and Terry 1952,
https://doi.org/10.2307/2334029; as an objective of language models https://arxiv.org/abs/2203.02155
"""

from typing import Annotated

from pydantic import Field, NonNegativeFloat
from torch.nn.functional import logsigmoid

from danlu.data.packing import Pack
from danlu.models.adapters.base import Adapter
from danlu.models.scorer import Layout, Scorer
from danlu.objectives._compared import compared, facts_of, pairs_of
from danlu.objectives.base import Builder, Loss, Models, Objective
from danlu.samples import PreferencePair

DOWNSCALED = 0.1


class Reward(Objective):
    """Give each answer a number, read at its last token, so that better answers have higher ones."""

    learns_from = (PreferencePair,)

    margin: float = 0.0
    """how much higher the better answer's score has to be, beside what a row says of itself"""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """share of the pairs that are taken to be the other way round: https://arxiv.org/abs/2305.18290"""
    centering: NonNegativeFloat = 0.0
    """weight of the squared sum of both scores, which keeps scores around 0 (0.01 is usual): arXiv:2312.09244"""
    downscale_weight: bool = False
    """begin with a tenth of the score layer's weights"""
    layout: Layout = "classifier"
    """what is saved: a model for sequence classification, or its adapter; such a model with the adapter merged; or an
    adapter of the language model with value_head.bin"""

    def refusal(self, adapter: Adapter, *, streaming: bool, quantized: bool) -> str | None:
        """What is saved in the end has to be there to be saved."""
        if self.layout == "value_head" and not adapter.lies_beside:
            return "layout: value_head is an adapter of the language model, and here there is none; say classifier"
        if self.layout == "merged" and quantized:
            return "layout: merged needs whole weights to merge into, and model.quantizer leaves none; say classifier"
        return None

    def models(self, build: Builder) -> Models:
        """A model with one output."""
        scorer = build.scorer(DOWNSCALED if self.downscale_weight else 1.0)
        scorer.layout = self.layout
        return {"policy": scorer}

    def loss(self, models: Models, pack: Pack) -> Loss:
        """-log sigmoid of the difference, of every pair; the count is the pairs."""
        scorer = models["policy"]
        assert isinstance(scorer, Scorer)
        better, worse = pairs_of(pack)
        scores_S = scorer.scores(pack)
        delta_P = scores_S[better] - scores_S[worse]
        ahead_P = delta_P - (self.margin + facts_of(pack, "margin")[better])
        smooth = self.label_smoothing
        losses_P = -(1 - smooth) * logsigmoid(ahead_P) - smooth * logsigmoid(-ahead_P)
        losses_P = losses_P + self.centering * (scores_S[better] + scores_S[worse]) ** 2
        values = {"delta": delta_P, "accept": scores_S[better], "reject": scores_S[worse]}
        told = {name: scores.detach() for name, scores in values.items()}
        return Loss(losses_P.sum(), len(better), compared(delta_P), told)
