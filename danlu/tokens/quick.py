"""Ids and loss mask of many samples, word by word; what cannot be done so to the same ids is left to the tokenizer."""

import re
from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
from tokenizers import Tokenizer

from danlu.tokens.spans import Written
from danlu.tokens.words import Words

SHORT, MOST = 200, 2000
Parts = list[tuple[list[str], bool]]
"""words, and whether they are trained"""


class Quick:
    """Cuts a written sample where its answers begin and end, and the texts between into words."""

    def __init__(self, backend: Tokenizer, words: Words) -> None:
        self.words = words
        added = {token.content: id for id, token in backend.get_added_tokens_decoder().items()}
        longest_first = sorted(added, key=len, reverse=True)
        self.part = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})").split
        words.keep(added)
        self.clean = {one for one in added if not any(other != one and other.startswith(one) for other in added)}
        self.seen: dict[str, list[str] | None] = {}

    @classmethod
    def of(cls, backend: Tokenizer) -> "Quick | None":
        """For a tokenizer whose words and added tokens are plain; else none."""
        tokens = backend.get_added_tokens_decoder().values()
        odd = any(token.lstrip or token.rstrip or token.single_word or not token.content for token in tokens)
        words = None if odd else Words.of(backend)
        return None if words is None else cls(backend, words)

    def ids_and_masks(self, written: Sequence[Written | None]) -> list[tuple[np.ndarray, np.ndarray] | None]:
        """(ids[n], trained[n]) of each sample; none for those that only the tokenizer can do."""
        if not self.words.pays:
            return [None] * len(written)
        cut = [None if one is None else self.cut(one) for one in written]
        parts = list(chain.from_iterable(filter(None, cut)))
        ids, counts = self.words.ids([words for words, _ in parts])
        masks = np.repeat(np.array([trained for _, trained in parts], bool), counts)
        ends = np.concatenate([[0], np.cumsum(counts)])[np.cumsum([0, *(len(parts or ()) for parts in cut)])].tolist()
        return [
            None if parts is None else (ids[begin:end], masks[begin:end])
            for parts, (begin, end) in zip(cut, pairwise(ends), strict=True)
        ]

    def cut(self, written: Written) -> Parts | None:
        """The parts of a sample.

        Nothing may run together where an answer starts, as what a model is served ends there. Where one ends, what
        follows it may: a cut there must change nothing.
        """
        text, fixed = written.text, {0, *written.cuts, *written.starts, len(written.text)}
        edges = sorted(fixed.union(*written.spans))
        parts: Parts = []
        before = 0
        for begin, end in pairwise(edges):
            words = self.split(text[begin:end])
            if words is None:
                return None
            free = begin in fixed or self.ends_clean(parts[-1][0])
            if not free and self.split(text[before:end]) != [*parts[-1][0], *words]:
                return None
            parts.append((words, any(first <= begin and end <= last for first, last in written.spans)))
            before = begin
        return parts

    def ends_clean(self, words: list[str]) -> bool:
        """Whether these end with an added token, behind which a text begins afresh."""
        return bool(words) and words[-1] in self.clean

    def split(self, text: str) -> list[str] | None:
        """The words of a text, added tokens among them."""
        words: list[str] = []
        texts = self.part(text)
        for n, piece in enumerate(texts):
            if n % 2:
                words.append(piece)
            elif piece:
                found = self.plain(piece)
                if found is None:
                    return None
                words += found
        return words

    def plain(self, text: str) -> list[str] | None:
        """The same without added tokens; what a template writes, such as `assistant`, comes again and again."""
        if len(text) > SHORT:
            return self.words.split(text)
        try:
            return self.seen[text]
        except KeyError:
            words = self.words.split(text)
            if len(self.seen) < MOST:
                self.seen[text] = words
            return words
