"""Samples become ids and a loss mask; prompts become the ids that a model is served."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jinja2 import TemplateError
from tokenizers import Encoding
from transformers import PreTrainedTokenizerFast

from danlu.samples import Conversation, Document, Message, Prompt
from danlu.tokens.head import head_of
from danlu.tokens.quick import Quick
from danlu.tokens.spans import Markers, Written, write_chat, write_document, write_prompt
from danlu.tokens.templates.base import Template
from danlu.tokens.tokenizer import adds_bos, special_id

log = logging.getLogger(__name__)

SHORT, MANY = 80, 200


@dataclass(slots=True)
class Encoded:
    """ids[n] uint32 and trained[n] bool: which of them a model learns to write."""

    ids: np.ndarray
    trained: np.ndarray
    problem: str = ""
    """why the template refused this sample, which has no ids then"""
    note: str = ""
    """what was added to the sample"""
    cut: bool = False
    """whether it is only a part of a sample"""


def encode_samples(
    samples: Sequence[Conversation | Document | Prompt], tokenizer: PreTrainedTokenizerFast, template: Template
) -> list[Encoded]:
    """Ids and loss mask of each sample; what is trained is exactly what would follow the served prompt."""
    return Encoder(tokenizer, template, many=len(samples) > MANY).samples(samples)


def encode_prompt(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerFast,
    template: Template,
    facts: dict[str, Any] | None = None,
) -> list[int]:
    """What a model is served before it answers: the very ids that stood before that answer in training."""
    return Encoder(tokenizer, template).prompt(messages, facts or {})


class Encoder:
    """A tokenizer and a template, made ready; `many` takes 0.1 s to find out what all chats have in common."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, template: Template, *, many: bool = False) -> None:
        self.backend = tokenizer.backend_tokenizer
        self.scribe = template.scribe(tokenizer)
        self.markers = Markers(tokenizer)
        self.added = set(tokenizer.added_tokens_decoder)
        self.bos = special_id(tokenizer, "bos") if adds_bos(tokenizer) else []
        self.eos = special_id(tokenizer, "eos")
        self.head = head_of(self.scribe, self.backend) if many else None
        self.quick = Quick.of(self.backend) if many else None
        self.seen: dict[str, list[int]] = {}

    def samples(self, samples: Sequence[Conversation | Document | Prompt]) -> list[Encoded]:
        """Ids and mask of each sample, or the template's reason to refuse it."""
        written = [self.write(sample) for sample in samples]
        documents = [isinstance(sample, Document) for sample in samples]
        quick = self.quick_ones(written, documents)
        slow = [one for one, done in zip(written, quick, strict=True) if isinstance(one, Written) and done is None]
        pieces = iter(self.pieces(slow))
        return [
            done or (refused(one) if isinstance(one, str) else self.join(one, next(pieces), document))
            for one, done, document in zip(written, quick, documents, strict=True)
        ]

    def quick_ones(self, written: list[Written | str], documents: list[bool]) -> list[Encoded | None]:
        """The samples that can be encoded word by word."""
        if self.quick is None:
            return [None] * len(written)
        found = self.quick.ids_and_masks([one if isinstance(one, Written) else None for one in written])
        quick = [
            self.whole(*some, one, document) if some is not None and isinstance(one, Written) else None
            for some, one, document in zip(found, written, documents, strict=True)
        ]
        if self.proven(quick, written, documents):
            return quick
        log.warning("word by word, this tokenizer gives other ids; its own, slower way is used")
        self.quick = None
        return [None] * len(written)

    def proven(self, quick: list[Encoded | None], written: list[Written | str], documents: list[bool]) -> bool:
        """Whether the tokenizer itself gives the same ids and mask for the longest of these samples."""
        lengths = [0 if one is None else len(one.ids) for one in quick]
        longest = max(range(len(quick)), key=lengths.__getitem__, default=0)
        one, text = (quick[longest], written[longest]) if quick else (None, "")
        if one is None or isinstance(text, str):
            return True
        own = self.join(text, self.pieces([text])[0], documents[longest])
        return np.array_equal(own.ids, one.ids) and np.array_equal(own.trained, one.trained)

    def prompt(self, messages: Sequence[Message], facts: dict[str, Any]) -> list[int]:
        """The ids of a chat that waits for its answer."""
        written = write_prompt(list(messages), facts, self.scribe, self.markers)
        return [id for _, piece in self.pieces([written])[0] for id in piece.ids]

    def write(self, sample: Conversation | Document | Prompt) -> Written | str:
        """A sample as text, or why the template refuses it."""
        if isinstance(sample, Document):
            written = write_document(sample, self.markers)
        else:
            try:
                written = (
                    write_prompt(sample.messages, {}, self.scribe, self.markers)
                    if isinstance(sample, Prompt)
                    else write_chat(sample, self.scribe, self.markers)
                )
            except TemplateError as error:
                return f"the chat template refuses it: {error}"
        return written if is_text(written.text) else "half of a character (a lone surrogate)"

    def pieces(self, written: list[Written]) -> list[list[tuple[int, Encoding]]]:
        """Each text's pieces (start, encoding), cut again where an id would straddle an answer's start."""
        pieces = self.encode_pieces(written)
        merged = [n for n, (one, parts) in enumerate(zip(written, pieces, strict=True)) if self.cut_more(one, parts)]
        for n, parts in zip(merged, self.encode_pieces([written[n] for n in merged]), strict=True):
            pieces[n] = parts
        return pieces

    def encode_pieces(self, written: list[Written]) -> list[list[tuple[int, Encoding]]]:
        """Encode every text between its cuts, all in one batch."""
        edges = [self.edges(one) for one in written]
        texts = [one.text[a:b] for one, at in zip(written, edges, strict=True) for a, b in pairwise(at)]
        encodings = iter(self.backend.encode_batch(texts, add_special_tokens=False))
        pieces = [[(start, next(encodings)) for start in at[:-1]] for at in edges]
        head = [(0, self.head.encoding)] if self.head else []
        return [[*head, *some] if at[0] else some for at, some in zip(edges, pieces, strict=True)]

    def edges(self, written: Written) -> list[int]:
        """Where a text's pieces begin and end, behind the head that all chats share."""
        edges = [0, *written.cuts, len(written.text)]
        headed = self.head is not None and len(self.head.text) < edges[1] and written.text.startswith(self.head.text)
        return [len(self.head.text), *edges[1:]] if self.head and headed else edges

    def cut_more(self, written: Written, pieces: list[tuple[int, Encoding]]) -> bool:
        """Add a cut at every answer's start whose prompt, served by itself, would have other ids."""
        if not written.starts:
            return False
        ends = [*(begin for begin, _ in pieces[1:]), len(written.text)]
        fresh = [
            start
            for (begin, encoding), end in zip(pieces, ends, strict=True)
            for start in written.starts
            if begin < start < end and not self.served_alike(encoding, written.text[begin:end], start - begin)
        ]
        written.cuts = sorted({*written.cuts, *fresh})
        return bool(fresh)

    def served_alike(self, encoding: Encoding, text: str, start: int) -> bool:
        """Whether the ids before `start` are those of the text before it."""
        token = encoding.char_to_token(start)
        if token is None or chars_of(encoding, token)[0] != start:
            return False
        ids = encoding.ids
        # Added tokens split a text before anything else looks at it, so only what follows the last one can differ.
        last = next((n for n in range(token - 1, -1, -1) if ids[n] in self.added), 0)
        begin = chars_of(encoding, last)[0] if last else 0
        return ids[last:token] == self.ids_of(text[begin:start])

    def ids_of(self, text: str) -> list[int]:
        """A text's ids; short ones, such as `<|im_start|>assistant`, come again and again."""
        known = self.seen.get(text)
        if known is None:
            known = self.backend.encode(text, add_special_tokens=False).ids
            if len(text) <= SHORT and len(self.seen) < 1000:
                self.seen[text] = known
        return known

    def join(self, written: Written, pieces: list[tuple[int, Encoding]], document: bool) -> Encoded:
        """The pieces of one sample, end to end, and what of them is trained."""
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        for begin, encoding in pieces:
            spans += [
                (len(ids) + first, len(ids) + last)
                for start, end in written.spans
                for first, last in tokens_of(encoding, start - begin, end - begin)
            ]
            ids += encoding.ids
        trained = np.zeros(len(ids), bool)
        for first, last in spans:
            trained[first:last] = True
        return self.whole(np.array(ids, np.uint32), trained, written, document)

    def whole(self, ids: np.ndarray, trained: np.ndarray, written: Written, document: bool) -> Encoded:
        """A sample with the bos and eos that belong to it."""
        before = self.bos if document else []
        after = self.eos if document or written.ends_open else []
        if before or after:
            ids = np.concatenate([np.array(before, np.uint32), ids, np.array(after, np.uint32)])
            trained = np.concatenate([np.ones(len(before), bool), trained, np.ones(len(after), bool)])
        trained[:1] = False  # nothing comes before the first id, so nothing can be asked to write it
        note = "no end of turn in the template: the tokenizer's eos was added" if written.ends_open else ""
        return Encoded(ids, trained, note=note)


def is_text(text: str) -> bool:
    """Whether a text is whole characters; JSON may hold halves of them, which no tokenizer reads."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def refused(problem: str) -> Encoded:
    """A sample without ids."""
    return Encoded(np.zeros(0, np.uint32), np.zeros(0, bool), problem=problem)


def tokens_of(encoding: Encoding, start: int, end: int) -> list[tuple[int, int]]:
    """The range of tokens that hold the characters from start to end; none where they are not in this piece."""
    count = len(encoding)
    if not count or end <= 0:
        return []
    total = chars_of(encoding, count - 1)[1]
    start, end = max(start, 0), min(end, total)
    if start == 0 and end == total:
        return [(0, count)]
    first = (
        0
        if start == 0
        else next((token for at in range(start, end) if (token := encoding.char_to_token(at)) is not None), None)
    )
    if first is None:
        return []
    last = next(token for at in range(end - 1, -1, -1) if (token := encoding.char_to_token(at)) is not None) + 1
    # A character of several tokens is known to char_to_token by its first one only.
    while last < count and chars_of(encoding, last)[0] < end:
        last += 1
    return [(first, last)]


def chars_of(encoding: Encoding, token: int) -> tuple[int, int]:
    """The characters of one token."""
    found = encoding.token_to_chars(token)
    assert found is not None
    return found
