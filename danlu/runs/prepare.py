"""Tokenise a recipe's data ahead of training: here, or shared out to the tasks of a cluster."""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from danlu.core.cache_folder import cache_folder
from danlu.core.errors import DataError
from danlu.data.pipeline import load_data, token_maker
from danlu.data.prepared import share
from danlu.data.recognise import format_of
from danlu.data.report import DataReport
from danlu.data.sources import Source
from danlu.models.load import tokenizer_of
from danlu.runs.train_run import TrainRun


def prepare(run: TrainRun) -> DataReport:
    """Fill the cache that `danlu train` of the same recipe reads; parts that were made apart are only joined."""
    tokenizer = tokenizer_of(run.model.path)
    report = load_data(run.data, tokenizer, run.objective.learns_from, seed=run.engine.seed).report
    run.data.limits.check(report)
    return report


@dataclass(frozen=True)
class Planned:
    """One source whose tokens are not there yet: the key they will have, and what its files hold."""

    number: int
    key: str
    contents: list[str]


class Plan:
    """What is to be tokenised, told to every task: settings, keys and hashes, nothing else travels."""

    def __init__(self, run: TrainRun, sources: list[Planned]) -> None:
        self.tree: dict[str, Any] = run.model_dump(mode="json")
        self.sources = sources
        self.folder = os.getcwd()

    @classmethod
    def of(cls, run: TrainRun) -> "Plan":
        """Hash every file once; the cache's own place is fixed here, for the tasks may run as somebody else."""
        place = (run.data.cache or cache_folder()).absolute()
        run = run.model_copy(update={"data": run.data.model_copy(update={"cache": place})})
        tokeniser = Tokeniser(run)
        found = []
        for number, source in enumerate(tokeniser.sources):
            key = tokeniser.maker.key(source, tokeniser.format(source))
            if not (tokeniser.maker.place(key) / "rows").is_dir():
                found.append(Planned(number, key, tokeniser.maker.contents(source.files)))
        return cls(run, found)

    @property
    def key(self) -> str:
        """Names this plan: the same for the same sources and settings."""
        return hashlib.sha256("".join(source.key for source in self.sources).encode()).hexdigest()[:16]

    @property
    def cache(self) -> Path:
        """Where tokens, parts and the tasks' own logs are kept; every task must see it."""
        return Path(self.tree["data"]["cache"])

    @cached_property
    def run(self) -> TrainRun:
        """The recipe, as it was resolved where the plan was made."""
        return TrainRun.model_validate(self.tree, context={"allow_code": self.tree["allow_code"]})

    def enter(self) -> None:
        """Stand where the recipe was started, for its paths begin there."""
        os.chdir(self.folder)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # tasks are forked, and there are as many as cores

    def tokenise(self, rank: int, world_size: int) -> int:
        """Make this task's share of every source; how many files that was."""
        self.enter()
        tokeniser, count = Tokeniser(self.run), 0
        for planned in self.sources:
            source = tokeniser.sources[planned.number]
            # the first so many rows of a source are known only to one who counts from its first file
            whole = range(len(source.files)) if rank == 0 else range(0)
            files = share(len(source.files), rank, world_size) if source.max_rows is None else whole
            if files:
                tokeniser.part(source, planned, files)
                count += len(files)
        return count


class Tokeniser:
    """A recipe's tokenizer and sources, without its model."""

    def __init__(self, run: TrainRun) -> None:
        self.learns_from = run.objective.learns_from
        tokenizer = tokenizer_of(run.model.path)
        self.maker, _ = token_maker(run.data, tokenizer, self.learns_from, run.engine.seed)
        self.sources: list[Source] = [*run.data.sources, *run.data.held_out_sources]

    def format(self, source: Source) -> Any:
        """The shape of its rows."""
        return format_of(source, self.learns_from)

    def part(self, source: Source, planned: Planned, files: range) -> None:
        """The ids of some files, if they still are what was planned."""
        there = source.files[files.start : files.stop]
        for file, found, hashed in zip(
            there, self.maker.contents(there), planned.contents[files.start :], strict=False
        ):
            if found != hashed:
                raise DataError(f"{file}: changed since the tasks were planned; run `danlu data prepare` again")
        self.maker.build_part(source, self.format(source), planned.key, files)
