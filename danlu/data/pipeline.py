"""From sources to steps: every source tokenised, a part of it held out, the rest in an order."""

import logging
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from transformers import PreTrainedTokenizerFast

from danlu.core.errors import DataError
from danlu.data.batch import Batch
from danlu.data.cache import TokenSet
from danlu.data.config import DataConfig
from danlu.data.loader import Loader
from danlu.data.mixture import Held
from danlu.data.order import held_out_rows
from danlu.data.packing import Pack
from danlu.data.report import DataReport
from danlu.data.rows import Rows
from danlu.data.sources import labels
from danlu.data.stream.data import StreamedData, streamed
from danlu.data.tokenise import TokenMaker
from danlu.samples import Sample
from danlu.tokens.templates.base import Template
from danlu.tokens.templates.default import Default
from danlu.tokens.templates.own import Own

log = logging.getLogger(__name__)


@dataclass
class Data:
    """Tokenised sources, split into what is trained and what is held out."""

    config: DataConfig
    template: Template
    sets: list[TokenSet]
    seed: int
    held_out_sets: list[TokenSet] = field(default_factory=list)

    @cached_property
    def _held_out(self) -> list[np.ndarray]:
        return [held_out_rows(self.seed, one.places[:, :2], self.config.held_out) for one in self.sets]

    @cached_property
    def train(self) -> Rows:
        """The rows to learn from."""
        return Rows(self.sets, [np.flatnonzero(~held) for held in self._held_out])

    @cached_property
    def held_out(self) -> dict[str, list[Pack]]:
        """Packs to evaluate on, by source."""
        kept = {one.name: np.flatnonzero(held) for one, held in zip(self.sets, self._held_out, strict=True)}
        kept |= {one.name: np.arange(len(one)) for one in self.held_out_sets}
        packs = {
            one.name: Rows([one], [kept[one.name]]).packs(self.config.tokens_per_pack)
            for one in [*self.sets, *self.held_out_sets]
        }
        return {name: some for name, some in packs.items() if some}

    @cached_property
    def report(self) -> DataReport:
        """What became of every row."""
        held = {one.name: int(rows.sum()) for one, rows in zip(self.sets, self._held_out, strict=True) if rows.any()}
        held |= {one.name: len(one) for one in self.held_out_sets}
        return DataReport({one.name: one.report for one in [*self.sets, *self.held_out_sets]}, held)

    @property
    def held(self) -> list[Held]:
        """What each source holds to train on, for a mixture."""
        return self.train.held

    @property
    def tokens_per_step(self) -> int:
        """About how many tokens one step sees."""
        return self.config.batch.tokens or int((self.config.batch.rows or 0) * self.train.lengths.mean())

    @property
    def keys(self) -> dict[str, str]:
        """What decides the tokens, by source."""
        return {one.name: one.key for one in [*self.sets, *self.held_out_sets]}

    def loader(
        self, *, epochs: float | None = None, batch: Batch | None = None, rank: int = 0, ranks: int = 1
    ) -> Loader:
        """The stream of steps, the same for every rank; without `epochs` it has no end."""
        config = self.config
        return Loader(
            self.train,
            batch or config.batch,
            pack_tokens=config.tokens_per_pack,
            seed=self.seed,
            shuffle=config.shuffle,
            epochs=epochs,
            mixture=config.mixture,
        )


def open_data(
    config: DataConfig, tokenizer: PreTrainedTokenizerFast, learns_from: tuple[type[Sample], ...], *, seed: int
) -> Data | StreamedData:
    """What a run trains on: tokenised before it, or streamed while it trains."""
    if config.streaming is None:
        return load_data(config, tokenizer, learns_from, seed=seed)
    maker, names = token_maker(config, tokenizer, learns_from, seed)
    return streamed(config, maker, names, seed)


def load_data(
    config: DataConfig, tokenizer: PreTrainedTokenizerFast, learns_from: tuple[type[Sample], ...], *, seed: int
) -> Data:
    """Every source, tokenised."""
    maker, names = token_maker(config, tokenizer, learns_from, seed)
    every = [*config.sources, *config.held_out_sources]
    sets = [maker.tokens(source, name) for source, name in zip(every, names, strict=True)]
    split = len(config.sources)
    return Data(config, maker.template, sets[:split], seed, sets[split:])


def token_maker(
    config: DataConfig, tokenizer: PreTrainedTokenizerFast, learns_from: tuple[type[Sample], ...], seed: int
) -> tuple[TokenMaker, list[str]]:
    """What makes the tokens of all sources, and their names."""
    if not config.sources:
        raise DataError("data.sources is empty; give it a file")
    names = labels([*config.sources, *config.held_out_sources])
    config.mixture.check(names[: len(config.sources)])
    return TokenMaker(tokenizer, template_for(config, tokenizer), learns_from, config, seed), names


def template_for(config: DataConfig, tokenizer: PreTrainedTokenizerFast) -> Template:
    """The template named, or the tokenizer's own, or the plain one that every tokenizer can write."""
    if config.template is not None:
        return config.template
    if tokenizer.chat_template:
        return Own()
    log.warning("this tokenizer has no chat template; data.template: default (Human: … Assistant: …) is used")
    return Default()
