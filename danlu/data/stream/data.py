"""Sources as a stream: dealt out to lanes, a few first rows of each held out."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

from danlu.core.errors import DataError, UserError
from danlu.data.cache import TokenSet
from danlu.data.config import DataConfig
from danlu.data.files.manifest import shard_of
from danlu.data.files.read import num_rows
from danlu.data.files.url import File
from danlu.data.mixture import Blend, Held, Unit
from danlu.data.packing import Pack
from danlu.data.recognise import format_of
from danlu.data.report import DataReport, SourceReport
from danlu.data.rows import Rows
from danlu.data.sources import Source
from danlu.data.stream.config import Streaming
from danlu.data.stream.lane import Lane
from danlu.data.stream.loader import Stream
from danlu.data.stream.track import Track, parts
from danlu.data.tokenise import TokenMaker
from danlu.data.workers import MOST, num_cores
from danlu.tokens.templates.base import Template

MOST_LANES = 8


@dataclass
class StreamedData:
    """What `Data` is, without counting or keeping the rows of what is trained on."""

    config: DataConfig
    maker: TokenMaker
    names: list[str]
    seed: int
    held_out_sets: list[TokenSet] = field(default_factory=list)
    held_out_rows: list[list[int]] = field(default_factory=list)
    """for each source, how many rows at the beginning of each of its files are kept for evaluation"""
    reports: dict[str, SourceReport] = field(default_factory=dict)

    @property
    def template(self) -> Template:
        """How chats are written."""
        return self.maker.template

    @property
    def streaming(self) -> Streaming:
        """How the stream is read."""
        assert self.config.streaming is not None
        return self.config.streaming

    @cached_property
    def held_out(self) -> dict[str, list[Pack]]:
        """Packs to evaluate on, by source."""
        return {one.name: Rows([one]).packs(self.config.tokens_per_pack) for one in self.held_out_sets}

    @property
    def report(self) -> DataReport:
        """What became of every row that was read since the run began or went on."""
        held = {one.name: one for one in self.held_out_sets}
        reports = {name: one.report for name, one in held.items() if name not in self.names}
        return DataReport(self.reports | reports, {name: len(one) for name, one in held.items()})

    @property
    def tokens_per_step(self) -> int:
        """About how many tokens one step sees."""
        batch = self.config.batch
        return batch.tokens or (batch.rows or 0) * self.config.tokens_per_pack // 4

    @cached_property
    def keys(self) -> dict[str, str]:
        """What decides the tokens and their order, by source: files are told by their names and sizes."""
        keys = {}
        for source, name in zip(self.config.sources, self.names, strict=True):
            made_of = self.maker.settings(source, self.format(source)) | {
                "files": [[str(file), size_of(file)] for file in source.files],
                "lanes": self.num_lanes,
            }
            keys[name] = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        return keys | {f"{one.name}, held out": one.key for one in self.held_out_sets}

    def format(self, source: Source):
        """How a source's rows are read."""
        return format_of(source, self.maker.learns_from)

    @cached_property
    def held(self) -> list[Held]:
        """What each source holds, as far as that is known without reading it."""
        pairs = zip(self.config.sources, self.names, strict=True)
        return [Held(name, len(source.files), partial(amount, source, name)) for source, name in pairs]

    @cached_property
    def num_lanes(self) -> int:
        """Fixed by the data, never by who trains."""
        lanes = self.streaming.lanes
        return min(MOST_LANES, max(len(source.files) for source in self.config.sources)) if lanes == "auto" else lanes

    def blend(self) -> Blend:
        """The mixture, without an end; one order of all rows becomes shares by what each source holds."""
        if len(self.names) == 1:
            return Blend("rows", (1.0,), (float("inf"),))
        found = self.config.mixture.blend(self.held, None)
        return found or Blend.of("rows", [one.amount("rows") for one in self.held], float("inf"))

    def loader(self, *, epochs: float | None = None, rank: int = 0, ranks: int = 1) -> Stream:
        """The stream of steps, which has no end; `rank` of `ranks` reads only what it needs."""
        if epochs is not None:
            raise UserError(NO_STEPS)
        config, workers = self.config, self.config.workers
        works = {
            name: self.maker.work(source, self.format(source))
            for source, name in zip(config.sources, self.names, strict=True)
        }
        return Stream(
            self._lanes(),
            config.batch,
            works,
            key=hashlib.sha256(json.dumps(self.keys, sort_keys=True).encode()).hexdigest(),
            workers=min(num_cores(), MOST) if workers == "auto" else workers,
            prefetch=self.streaming.prefetch,
            together=config.tokens_per_pack if config.documents == "together" else None,
            rank=rank,
            ranks=ranks,
        )

    def _lanes(self) -> list[Lane]:
        config, count, blend = self.config, self.num_lanes, self.blend()
        caps = config.mixture.caps(self.names)
        if wrong := [cap for cap in caps if cap % 1 and cap != float("inf")]:
            raise DataError(f"data.mixture.max_epochs: {wrong[0]}: with data.streaming, whole numbers of epochs")
        window = max(1, self.streaming.window // (count * len(self.names)))
        shared = [
            parts(source, name, count, held)
            for source, name, held in zip(config.sources, self.names, self.held_out_rows, strict=True)
        ]
        self.reports = {name: SourceReport() for name in self.names}
        sizes = [1.0] * len(self.names)
        if blend.by == "bytes":
            sizes = [one.amount("bytes") / one.amount("rows") for one in self.held]
        lanes = []
        for lane in range(count):
            tracks = [
                Track(
                    some[lane], lane * len(shared) + n, self.seed, shuffle=config.shuffle, window=window,
                    last_epoch=caps[n], report=self.reports[some[lane].name],
                )
                for n, some in enumerate(shared)
            ]  # fmt: skip
            lanes.append(Lane(tracks, blend.weights, blend.by, sizes, config.tokens_per_pack))
        return lanes


NO_STEPS = "Please specify engine.steps: with data.streaming, the rows are not counted, so an epoch has no length"


def size_of(file: File) -> int:
    """A file's size as stored; -1 where only its storage knows."""
    if isinstance(file, Path):
        return file.stat().st_size
    shard = shard_of(file)
    return shard.bytes if shard else -1


def amount(source: Source, name: str, by: Unit) -> float:
    """What a source holds: bytes exactly, rows by its manifest or by what its first file holds."""
    sizes = [size_of(file) for file in source.files]
    if by not in ("bytes", "rows") or min(sizes) < 0:
        raise DataError(
            f"{name}: with data.streaming nobody has counted its {by.replace('_', ' ')}; give data.mixture.shares"
        )
    if by == "bytes":
        return float(sum(sizes))
    shards = [shard_of(file) for file in source.files]
    if all(shards):
        return float(sum(shard.rows for shard in shards if shard))
    return num_rows(source.files[0], source.unit, source.on_damage) * sum(sizes) / max(1, sizes[0])


def first_rows(source: Source, name: str, count: int) -> tuple[Source, list[int]]:
    """The first rows of a source as a source, and how many of them each of its files holds."""
    held = [0] * len(source.files)
    for (file, _), _ in islice(source.rows(), count):
        held[file] += 1
    files = [str(file) for file, rows in zip(source.files, held, strict=True) if rows]
    # a copy would keep the files that were found for the whole source
    return Source.model_construct(**dict(source) | {"path": files, "max_rows": count, "name": name}), held


def streamed(config: DataConfig, maker: TokenMaker, names: Sequence[str], seed: int) -> StreamedData:
    """Sources to stream, and the tokens of what is held out."""
    split = len(config.sources)
    if 0 < config.held_out < 1:
        raise DataError(
            f"data.held_out: {config.held_out}: with data.streaming it is a number of first rows, such as 500"
        )
    for source, name in zip(config.sources, names, strict=False):
        if source.max_rows is not None:
            raise DataError(f"{name}: max_rows does not go with data.streaming, where files have an order of their own")
    sets, skipped = [], []
    for source, name in zip(config.sources, names, strict=False):
        part, held = first_rows(source, name, int(config.held_out))
        skipped.append(held)
        sets += [maker.tokens(part, name)] if sum(held) else []
    sets += [maker.tokens(*pair) for pair in zip(config.held_out_sources, names[split:], strict=True)]
    return StreamedData(config, maker, list(names[:split]), seed, sets, skipped)
