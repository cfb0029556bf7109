"""Tokens for every track of a stream, made in several processes: whoever has least is read for next."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from danlu.data.chunks import Chunk
from danlu.data.sources import Place
from danlu.data.stream.track import Done, Job, Row, Track
from danlu.data.workers import over

Worker = Callable[[list[tuple[Place, Any]]], Chunk]


class Feed:
    """Fills tracks. What each holds does not depend on when it is filled, so neither do the steps."""

    def __init__(
        self, tracks: Sequence[Track], works: dict[str, Worker], workers: int, *, prefetch: int, together: int | None
    ) -> None:
        self.tracks, self.together = {track.number: track for track in tracks}, together
        names = {track.number: track.part.name for track in tracks}

        def work(job: Job) -> Done:
            return Done(job.track, works[names[job.track]](job.rows), len(job.rows), job.end)

        self._results = over(work, self._jobs(), workers, waiting=prefetch)

    def _jobs(self) -> Iterator[Job]:
        reading = list(self.tracks.values())
        while reading:
            # memory stays bounded: nothing is read but for a track that waits, and for those that have less than it
            track = min(reading, key=lambda one: one.ahead)
            job = next(track.jobs, None)
            if job is None:
                reading.remove(track)
            else:
                track.ahead += len(job.rows)
                yield job

    def peek(self, track: Track) -> Row | None:
        """A track's next row, when it is there; none where the track has ended."""
        while (row := track.peek()) is None and not track.ended:
            if not track.fill(self.together):
                done = next(self._results)
                self.tracks[done.track].ready.append(done)
        return row

    def close(self) -> None:
        """End the processes."""
        self._results.close()  # type: ignore[attr-defined]
