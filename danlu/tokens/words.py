"""A text's ids by its words: a byte-level tokenizer cuts a text into words first, and each word is encoded only once.

A tokenizer's own cut keeps track of every character, which costs ten times what a regular expression does. Only where
that expression is known to cut alike is it used; everything else is left to the tokenizer.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal, get_args

import numpy as np
import regex
from tokenizers import Tokenizer

# https://github.com/openai/gpt-2/blob/master/src/encoder.py; without its look-ahead where digits stand alone, as these
# are cut out before spaces are looked at
BYTE_LEVEL = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LONE_DIGITS = r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
LONG_S = "\u017f"
"""where case is ignored, some expressions take this for an s"""
Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
MOST_WORDS = 300_000
TRIED, TOO_MANY_NEW = 50_000, 0.3


class Words:
    """Cuts texts into words and knows the ids of each word."""

    def __init__(self, backend: Tokenizer, pattern: str, form: Form | None) -> None:
        self.backend = backend
        self.form: Form | None = form
        self.covers = pattern in (BYTE_LEVEL, LONE_DIGITS)
        self.find = regex.compile(pattern).findall
        self.find_ascii = quickest(pattern).findall
        self.numbers = Numbers()
        self.counts = self.starts = np.zeros(0, np.int64)
        self.flat = np.zeros(0, np.uint32)
        self.num_kept = 0
        self.stable: dict[str, bool] = {}
        self.asked = self.new = 0

    @classmethod
    def of(cls, backend: Tokenizer) -> "Words | None":
        """For a tokenizer that is known to cut into words as a regular expression does; else none."""
        told = json.loads(backend.to_str())
        normalizer, model = told["normalizer"], told["model"]
        form: Any = normalizer["type"] if normalizer else None
        pattern = pattern_of(told["pre_tokenizer"] or {})
        plain = model["type"] == "BPE" and not model.get("dropout") and not model.get("continuing_subword_prefix")
        if pattern is None or not plain or form not in (None, *get_args(Form)):
            return None
        return cls(backend, pattern, form)

    def split(self, text: str) -> list[str] | None:
        """The words of a text; none where only the tokenizer knows."""
        if CONTROL.search(text):
            return None
        if text.isascii():
            words = self.find_ascii(text)
        elif self.readable(text):
            words = self.find(text)
        else:
            return None
        return words if self.covers or sum(map(len, words)) == len(text) else None

    def readable(self, text: str) -> bool:
        """Whether the expression reads these characters as the tokenizer does."""
        if self.form and not unicodedata.is_normalized(self.form, text):
            return False
        return all(map(self.is_stable, set(text)))

    def is_stable(self, letter: str) -> bool:
        """Whether a character has been of one kind in all versions of Unicode, so that all libraries agree on it."""
        known = self.stable.get(letter)
        if known is None:
            kind = unicodedata.category(letter)
            known = self.stable[letter] = (
                kind not in ("Cn", "Cs") and kind == unicodedata.ucd_3_2_0.category(letter) and letter not in LONG_S
            )
        return known

    @property
    def pays(self) -> bool:
        """Whether words come again: in a language that puts no spaces between them, most do not."""
        return self.asked < TRIED or self.new < TOO_MANY_NEW * self.asked

    def keep(self, words: Mapping[str, int]) -> None:
        """Know these, each of one id, for ever."""
        for word in words:
            self.numbers[word]
        self.add(np.array(list(words.values()), np.uint32), np.ones(len(words), np.int64))
        self.num_kept = len(words)

    def ids(self, every: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """The ids[n] of all words end to end, and how many each list of them has; new words are encoded at once."""
        if len(self.numbers) > MOST_WORDS:
            self.forget()
        sizes = np.fromiter(map(len, every), np.int64, len(every))
        words = np.fromiter(map(self.numbers.__getitem__, chain.from_iterable(every)), np.int64, sizes.sum())
        self.learn(len(words))
        counts = self.counts[words]
        ends = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(self.starts[words] - ends[:-1], counts) + np.arange(ends[-1])
        return self.flat[places], np.diff(ends[np.concatenate([[0], np.cumsum(sizes)])])

    def learn(self, asked: int) -> None:
        """Find out the ids of all words that have a number and nothing else."""
        new = list(islice(self.numbers, len(self.counts), None))
        self.asked += asked
        self.new += len(new)
        if new:
            found = self.backend.encode(new, is_pretokenized=True, add_special_tokens=False)
            self.add(np.array(found.ids, np.uint32), np.bincount(found.word_ids, minlength=len(new)))  # type: ignore[arg-type]

    def add(self, ids: np.ndarray, counts: np.ndarray) -> None:
        """Words that have a number now, whose ids[sum of counts] stand end to end."""
        self.starts = np.concatenate([self.starts, len(self.flat) + np.cumsum(counts) - counts])
        self.counts = np.concatenate([self.counts, counts])
        self.flat = np.concatenate([self.flat, ids])

    def forget(self) -> None:
        """Know only what is kept: each of that has one id, and they come first."""
        self.numbers = Numbers(islice(self.numbers.items(), self.num_kept))
        self.starts, self.counts, self.flat = (one[: self.num_kept] for one in (self.starts, self.counts, self.flat))


class Numbers(dict[str, int]):
    """Each word's number, in the order in which they were first asked for."""

    def __missing__(self, word: str) -> int:
        self[word] = len(self)
        return len(self) - 1


def pattern_of(step: dict[str, Any]) -> str | None:
    """The expression whose matches are a pre-tokenizer's words."""
    steps = step["pretokenizers"] if step.get("type") == "Sequence" else [step]
    kinds = [one.get("type") for one in steps]
    if kinds[-1] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    by_regex = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and by_regex:
        return BYTE_LEVEL
    if kinds == ["Digits", "ByteLevel"] and by_regex and steps[0]["individual_digits"]:
        return LONE_DIGITS
    if kinds == ["Split", "ByteLevel"] and not by_regex:
        return own_pattern(steps[0])
    return None


def own_pattern(split: dict[str, Any]) -> str | None:
    """A tokenizer's own expression, where its matches are the words."""
    pattern = split["pattern"].get("Regex")
    if pattern is None or split["behavior"] != "Isolated" or split["invert"]:
        return None
    try:
        return None if regex.compile(pattern).groups else pattern
    except regex.error:
        return None


def quickest(pattern: str) -> "re.Pattern[str] | regex.Pattern[str]":
    """The same expression for a text of ASCII only: `re` is twice as fast as `regex`, but knows less."""
    try:
        return re.compile(for_ascii(pattern), re.ASCII)
    except re.error:
        return regex.compile(pattern)


def for_ascii(pattern: str) -> str:
    """The same expression without kinds of characters that ASCII has not."""
    kinds, made, inside = {r"\p{L}": "A-Za-z", r"\p{N}": "0-9"}, "", False
    for part in regex.findall(r"\\p\{[LN]\}|\\.|.", pattern, flags=regex.DOTALL):
        inside = part == "[" or (inside and part != "]")
        kind = kinds.get(part)
        made += part if kind is None else kind if inside else f"[{kind}]"
    return made
