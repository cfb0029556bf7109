"""One source's rows as ids: found in the cache, or made in parallel and kept there."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from danlu.core.cache_folder import cache_folder
from danlu.core.errors import DataError
from danlu.core.files import folder_at_once, sweep
from danlu.core.lock import Lock
from danlu.data.answers import COMPARED
from danlu.data.cache import TokenSet, write_tokens
from danlu.data.chunks import Work, check_prompts
from danlu.data.config import DataConfig
from danlu.data.contents import content_of
from danlu.data.files.url import File
from danlu.data.formats import formats
from danlu.data.formats.base import Format
from danlu.data.prepared import FOLDER, chunks_of, part_of, whole_of
from danlu.data.progress import watched
from danlu.data.recognise import format_of
from danlu.data.report import DataReport, SourceReport
from danlu.data.sources import Source
from danlu.data.together import joined
from danlu.data.workers import MOST, in_chunks, num_cores, over
from danlu.samples import Prompt, Sample
from danlu.tokens.templates.base import Template
from danlu.tokens.tokenizer import fingerprint

CODE = 5
"""count up when the same rows and settings give other ids"""
CHUNK_ROWS = 1000


@dataclass
class TokenMaker:
    """What all sources of a run have in common."""

    tokenizer: PreTrainedTokenizerFast
    template: Template
    learns_from: tuple[type[Sample], ...]
    config: DataConfig
    seed: int = 0

    def tokens(self, source: Source, name: str) -> TokenSet:
        """A source's token set: from the cache, or made now by this process or by the one that is at it."""
        format = format_of(source, self.learns_from)
        key = self.key(source, format)
        place = self.place(key)
        folder = place / "rows"
        if not folder.is_dir():
            with Lock(place / "lock", wait=True, purpose=f"the tokens of {name}"):
                if "rows" not in os.listdir(place):  # a shared disk may remember for a while that it was not there
                    sweep(place)
                    self.build(folder, source, name, format, key)
        found = TokenSet(folder, name)
        if not len(found):
            why = DataReport({name: found.report}).lines()
            raise DataError("\n".join([f"{name}: no row is left to train on", *why]))
        return found

    @cached_property
    def cache(self) -> Path:
        """Where everything is kept."""
        return self.config.cache or cache_folder()

    @cached_property
    def common_key(self) -> dict[str, Any]:
        """What decides the ids, whatever the source."""
        scribe, config = self.template.scribe(self.tokenizer), self.config
        together = config.documents == "together"
        length = ["together", config.tokens_per_pack] if together else [config.max_length, config.too_long]
        return {
            "code": CODE,
            "tokenizer": fingerprint(self.tokenizer),
            "template": [scribe.jinja, scribe.marks],
            "length": [*length, self.seed] if config.too_long == "sample" and not together else length,
        }

    def settings(self, source: Source, format: Format) -> dict[str, Any]:
        """What decides the ids of a source, but for what its files hold."""
        return self.common_key | {
            "source": source.model_dump(mode="json", include={"max_rows", "system", "columns", "unit", "on_damage"}),
            "format": [formats.name_of(format), format.model_dump(mode="json")],
        }

    def contents(self, files: Iterable[File]) -> list[str]:
        """SHA-256 of each file."""
        return [content_of(file, self.cache / "files", trust_times=self.config.trust_times) for file in files]

    def key(self, source: Source, format: Format) -> str:
        """SHA-256 of everything that decides the ids."""
        made_of = self.settings(source, format) | {"files": self.contents(source.files)}
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()

    def place(self, key: str) -> Path:
        """Where the tokens of a key are kept."""
        return self.cache / "tokens" / key

    def work(self, source: Source, format: Format) -> Work:
        """Everything that turns rows of a source into ids."""
        config = self.config
        asks = Prompt in self.learns_from
        if config.documents == "together" and (asks or format.gives in COMPARED):
            kind = "prompts" if asks else "answers that are judged"
            raise DataError(f"{source.path}: data.documents: together joins texts, and these are {kind}")
        if asks:
            check_prompts(source, config.too_long)
        most = sys.maxsize if config.documents == "together" else config.max_length
        return Work(source, format, self.tokenizer, self.template, most, config.too_long, seed=self.seed)

    def build(self, folder: Path, source: Source, name: str, format: Format, key: str) -> None:
        """Every row's ids, in a folder that appears when it is whole: from parts that were made apart, or made now."""
        config = self.config
        parts = whole_of(folder.parent, len(source.files))
        work = self.work(source, format)
        workers = min(num_cores(), MOST) if config.workers == "auto" else config.workers
        chunks = chunks_of(parts) if parts else over(work, in_chunks(source.rows(), CHUNK_ROWS), workers)
        chunks = watched(chunks, name)
        chunks = joined(chunks, config.tokens_per_pack) if config.documents == "together" else chunks
        with folder_at_once(folder) as aside:
            write_tokens(aside, chunks, key, work.id_type, self.first_report(source, format))
        shutil.rmtree(folder.parent / FOLDER, ignore_errors=True)

    def build_part(self, source: Source, format: Format, key: str, files: range) -> Path:
        """The ids of some of a source's files, unless they are there already; made by this process alone."""
        folder = part_of(self.place(key), files)
        if not folder.is_dir():
            work = self.work(source, format)
            chunks = over(work, in_chunks(source.rows(files=files), CHUNK_ROWS), workers=1)
            with folder_at_once(folder) as aside:
                write_tokens(aside, chunks, key, work.id_type, self.first_report(source, format))
        return folder

    def first_report(self, source: Source, format: Format) -> SourceReport:
        """A report that counts nothing yet."""
        return SourceReport(format=formats.name_of(format), files=[str(file) for file in source.files])
