"""Pack data sets into folders of shards, several at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from danlu.core.errors import UserError
from danlu.data.files.find import files_of, stem_of
from danlu.data.files.manifest import Manifest, manifest_of
from danlu.data.files.text import Unit
from danlu.data.files.url import File
from danlu.data.shards import write_shards
from danlu.data.workers import num_cores, over


@dataclass(frozen=True)
class Job:
    """A data set and the name that its folder of shards gets."""

    said: str
    name: str
    files: Sequence[File]


def compress(
    sources: Sequence[str], to: Path, shard_size: int, workers: int | None = None, unit: Unit = "line"
) -> Iterator[tuple[str, Manifest]]:
    """Each source's path and what became of it, in order; a folder stands for every data set in it."""
    if shard_size < 1:
        raise UserError(f"{shard_size} rows a shard: give at least 1")
    jobs = jobs_of(sources)
    workers = workers or num_cores()
    work = partial(pack, to=to, shard_size=shard_size, threads=max(1, workers // len(jobs)), unit=unit)
    return zip((job.said for job in jobs), over(work, jobs, workers), strict=True)


def pack(job: Job, *, to: Path, shard_size: int, threads: int, unit: Unit) -> Manifest:
    """One data set."""
    return write_shards(job.files, to / job.name, shard_size, threads=threads, unit=unit)


def jobs_of(sources: Sequence[str]) -> list[Job]:
    """Every data set meant, each with a name of its own."""
    jobs: dict[str, Job] = {}
    for source in sources:
        for name, files in named(files_of(source)):
            said = source if len(files) > 1 else str(files[0])
            if name in jobs:
                raise UserError(
                    f"{jobs[name].said} and {said} would both be called {name}; rename one or pack it apart"
                )
            jobs[name] = Job(said, name, files)
    return list(jobs.values())


def named(files: Sequence[File]) -> list[tuple[str, list[File]]]:
    """Each file under its name, and the files of a folder of shards together."""
    groups: dict[str, list[File]] = {}
    for file in files:
        key = str(file) if manifest_of(file) is None else str(file).rpartition("/")[0]
        groups.setdefault(key, []).append(file)
    return [(stem_of(some[0]), some) for some in groups.values()]
