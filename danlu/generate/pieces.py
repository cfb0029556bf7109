"""Turn a growing list of ids into pieces of text that never end inside a character."""

from collections.abc import Iterable, Iterator

from transformers import PreTrainedTokenizerBase

BROKEN = "\ufffd"
WINDOW = 8
"""ids before the new ones that are decoded again, as a piece may depend on what stands before it"""


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """Ids as text, without special tokens, every space as it was written."""
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def pieces(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> Iterator[str]:
    """The text as it grows; joined, the pieces are the decoded whole."""
    seen: list[int] = []
    start = told = 0
    for token in ids:
        seen.append(token)
        before, now = decode(tokenizer, seen[start:told]), decode(tokenizer, seen[start:])
        # an unfinished character decodes to U+FFFD; four bytes are the longest, so after that it is really broken
        if len(now) <= len(before) or (now.endswith(BROKEN) and len(seen) - told < 4):
            continue
        yield now[len(before) :]
        told = len(seen)
        start = max(0, told - WINDOW)
    rest = decode(tokenizer, seen[start:])[len(decode(tokenizer, seen[start:told])) :]
    if rest:
        yield rest
