"""From sources to tokenised rows, once: found in the cache, or built in parallel and kept there."""

import hashlib
import json
import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from danlu.core.cache_folder import cache_folder
from danlu.core.errors import DataError
from danlu.core.files import folder_at_once, sha256_of, sweep
from danlu.core.lock import Lock
from danlu.data.batch import Batch
from danlu.data.cache import TokenSet, write_tokens
from danlu.data.chunks import Work
from danlu.data.config import DataConfig
from danlu.data.loader import Loader, Rows
from danlu.data.order import held_out_rows
from danlu.data.packing import Pack
from danlu.data.progress import watched
from danlu.data.report import DataReport, SourceReport
from danlu.data.sources import Source, format_of, labels
from danlu.data.workers import MOST, in_chunks, num_cores, over
from danlu.samples import Sample
from danlu.tokens.templates.base import Template
from danlu.tokens.templates.default import Default
from danlu.tokens.templates.own import Own
from danlu.tokens.tokenizer import fingerprint

log = logging.getLogger(__name__)

CODE = 2
"""count up when the same rows and settings give other ids"""
CHUNK_ROWS = 1000


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
            one.name: Rows([one], [kept[one.name]]).packs(self.config.pack_tokens)
            for one in [*self.sets, *self.held_out_sets]
        }
        return {name: some for name, some in packs.items() if some}

    @cached_property
    def report(self) -> DataReport:
        """What became of every row."""
        held = {one.name: int(rows.sum()) for one, rows in zip(self.sets, self._held_out, strict=True) if rows.any()}
        held |= {one.name: len(one) for one in self.held_out_sets}
        return DataReport({one.name: one.report for one in [*self.sets, *self.held_out_sets]}, held)

    def loader(self, *, epochs: float | None = None, batch: Batch | None = None) -> Loader:
        """The stream of steps; without `epochs` it has no end."""
        config = self.config
        return Loader(
            self.train,
            batch or config.batch,
            pack_tokens=config.pack_tokens,
            seed=self.seed,
            shuffle=config.shuffle,
            epochs=epochs,
        )


def load_data(
    config: DataConfig, tokenizer: PreTrainedTokenizerFast, learns_from: tuple[type[Sample], ...], *, seed: int
) -> Data:
    """Every source, tokenised."""
    template = template_for(config, tokenizer)
    every = [*config.sources, *config.held_out_sources]
    if not config.sources:
        raise DataError("data.sources is empty; give it a file")
    sets = [
        tokenised(source, name, template, tokenizer, learns_from, config)
        for source, name in zip(every, labels(every), strict=True)
    ]
    split = len(config.sources)
    return Data(config, template, sets[:split], seed, sets[split:])


def template_for(config: DataConfig, tokenizer: PreTrainedTokenizerFast) -> Template:
    """The template named, or the tokenizer's own, or the plain one that every tokenizer can write."""
    if config.template is not None:
        return config.template
    if tokenizer.chat_template:
        return Own()
    log.warning("this tokenizer has no chat template; data.template: default (Human: … Assistant: …) is used")
    return Default()


def tokenised(
    source: Source,
    name: str,
    template: Template,
    tokenizer: PreTrainedTokenizerFast,
    learns_from: tuple[type[Sample], ...],
    config: DataConfig,
) -> TokenSet:
    """One source's rows as ids: from the cache, or made now."""
    format = format_of(source, learns_from)
    work = Work(source, format, tokenizer, template, config.max_length, config.too_long)
    key = key_of(work, tokenizer, template)
    place = (config.cache or cache_folder()) / "tokens" / key
    folder = place / "rows"
    if not folder.is_dir():
        with Lock(place / "lock", wait=True, purpose=f"the tokens of {name}"):
            if not folder.is_dir():
                sweep(place)
                build(folder, work, name, key, config)
    found = TokenSet(folder, name)
    if not len(found):
        raise DataError("\n".join([f"{name}: no row is left to train on", *DataReport({name: found.report}).lines()]))
    return found


def key_of(work: Work, tokenizer: PreTrainedTokenizerFast, template: Template) -> str:
    """SHA-256 of everything that decides the ids."""
    made_of = {
        "code": CODE,
        "files": [sha256_of(file) for file in work.source.files],
        "source": work.source.model_dump(mode="json", include={"max_rows", "system"}),
        "format": [type(work.format).__module__, type(work.format).__name__, work.format.model_dump(mode="json")],
        "template": [work.encoder.scribe.jinja, work.encoder.scribe.marks],
        "tokenizer": fingerprint(tokenizer),
        "length": [work.max_length, work.too_long],
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def build(folder: Path, work: Work, name: str, key: str, config: DataConfig) -> None:
    """Tokenise every row into a folder that appears when it is whole."""
    workers = min(num_cores(), MOST) if config.workers == "auto" else config.workers
    report = SourceReport(
        format=type(work.format).__module__.rpartition(".")[2], files=list(map(str, work.source.files))
    )
    chunks = over(work, in_chunks(work.source.rows(), CHUNK_ROWS), workers)
    with folder_at_once(folder) as aside:
        write_tokens(aside, watched(chunks, name), key, work.id_type, report)
    if not report.rows_in:
        raise DataError(f"{work.source.path}: no rows in it")
