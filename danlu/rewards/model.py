"""A reward model: a run of `danlu train reward`, its adapter, or any model for sequence classification."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from danlu.core.errors import UserError
from danlu.data.packing import Pack, best_fit
from danlu.models.classifier import score_of
from danlu.models.load import load_model, plain, tokenizer_folder
from danlu.models.lodger import Lodger, cannot_lodge
from danlu.models.resolve import resolve
from danlu.models.scorer import Scorer
from danlu.rewards.base import Answer, Court, Judge, Reward
from danlu.tokens.tokenizer import fingerprint, load_tokenizer


class Model(Reward):
    """The score of an answer, frozen beside the policy."""

    path: str
    """a run, a folder, an adapter's folder or a hub id of a model with one score"""
    reads: Literal["chat", "answer"] = "chat"
    """the prompt and the answer in the policy's own tokens, or only the answer's words, in any tokenizer"""

    shared: Literal["auto"] | bool = "auto"
    """lay only its adapter beside the policy's, over one base, or load it apart; auto shares where that is possible"""

    def open(self, court: Court) -> Judge:
        """Load it beside the policy."""
        folder = resolve(self.path)
        tokenizer = load_tokenizer(tokenizer_folder(folder))
        if self.reads == "chat" and fingerprint(tokenizer) != fingerprint(court.tokenizer):
            raise UserError(
                f"reward model {self.path}: its tokenizer or chat template is not the policy's, whose tokens it would "
                "read; say reads: answer to let it read the answer's words alone"
            )
        scorer = self._beside(folder, court) or self._apart(folder, court)

        def judge(answers: Sequence[Answer]) -> list[float]:
            if self.reads == "chat":
                rows = [answer.prompt_ids + answer.ids for answer in answers]
            else:
                backend = tokenizer.backend_tokenizer
                rows = [backend.encode(answer.text or " ").ids for answer in answers]
            return scores(scorer, rows, court)

        return judge

    def _beside(self, folder: Path, court: Court) -> Lodger | None:
        """Over the policy's base, where the recipe does not say otherwise."""
        if self.shared is False or court.policy is None:
            return None
        problem = cannot_lodge(court.policy.model, folder)
        if problem is None:
            return Lodger(court.policy, folder)
        if self.shared is True:
            raise UserError(
                f"reward model {self.path}: it cannot share the policy's base: {problem}; say shared: false"
            )
        return None

    def _apart(self, folder: Path, court: Court) -> Scorer:
        """A whole model of its own."""
        model = plain(load_model(folder))
        layer = score_of(model)
        if layer is None or model.config.num_labels != 1:
            outputs = "no score" if layer is None else f"{model.config.num_labels} scores"
            raise UserError(f"reward model {self.path}: it gives {outputs}; a reward model gives one")
        return Scorer(model.to(court.device)).eval().requires_grad_(False)  # type: ignore[arg-type]


@torch.no_grad()
def scores(scorer: Scorer | Lodger, rows: Sequence[list[int]], court: Court) -> list[float]:
    """One of each row of ids, read in packs."""
    found = [0.0] * len(rows)
    for numbers in best_fit([len(row) for row in rows], court.pack_tokens):
        pack = Pack.of([(np.array(rows[n]), np.zeros(len(rows[n]), bool)) for n in numbers])
        for number, score in zip(numbers, scorer.scores(pack.to(court.device)).tolist(), strict=True):
            found[number] = score
    return found
