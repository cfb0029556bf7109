"""Rows of real text as one small file of numbers, for machines that have neither the texts nor a tokenizer.

    python benchmarks/gpu_sft.py --prepare rows.npz --data alpaca.jsonl.zst,sharegpt.jsonl.zst

Danlu reads, tokenises and masks the rows as it would for a run; they are kept in one random order.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class TokenFile:
    """R rows of N tokens. ids[N], trained[N] bool, lengths[R]."""

    ids: np.ndarray
    trained: np.ndarray
    lengths: np.ndarray

    @classmethod
    def load(cls, path: Path) -> "TokenFile":
        """From a file."""
        with np.load(path, allow_pickle=False) as found:
            trained = np.unpackbits(found["trained"], count=len(found["ids"])).astype(bool)
            return cls(found["ids"], trained, found["lengths"])

    def save(self, path: Path) -> None:
        """To a file."""
        np.savez_compressed(path, ids=self.ids, trained=np.packbits(self.trained), lengths=self.lengths)

    def rows(self, at_least: int | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
        """(ids[n], trained[n]) of each row; or of the first with so many tokens, from the start again if need be."""
        ends = np.cumsum(self.lengths)[:-1]
        pairs = list(zip(np.split(self.ids, ends), np.split(self.trained, ends), strict=True))
        if at_least is None:
            return pairs
        found, tokens = [], 0
        while tokens < at_least:
            found.append(pairs[len(found) % len(pairs)])
            tokens += len(found[-1][0])
        return found


def prepare(files: list[str], model: str, out: Path, *, most: int, longest: int) -> TokenFile:
    """Tokenise files as a run would, and keep about `most` tokens of rows by chance."""
    from danlu.data.config import DataConfig
    from danlu.data.pipeline import load_data
    from danlu.models.load import tokenizer_of
    from danlu.samples import Conversation, Document

    with tempfile.TemporaryDirectory() as cache:
        config = DataConfig(sources=[{"path": file} for file in files], cache=cache, max_length=longest, workers=0)
        held = load_data(config, tokenizer_of(model), (Conversation, Document), seed=0).train
        order, kept, tokens = np.random.default_rng(0).permutation(len(held)), [], 0
        for number in order:
            at = int(np.searchsorted(held.bounds, number, side="right") - 1)
            ids, trained = held.sets[at].row(int(held.number[number]))
            if trained[1:].any():
                kept.append((np.array(ids), np.array(trained)))
                tokens += len(ids)
            if tokens >= most:
                break
    file = TokenFile(
        np.concatenate([ids for ids, _ in kept]).astype(np.uint32),
        np.concatenate([trained for _, trained in kept]),
        np.array([len(ids) for ids, _ in kept], np.int32),
    )
    file.save(out)
    return file
