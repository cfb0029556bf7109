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
    start, before, fresh, shown = 0, "", "", 0
    for token in ids:
        seen.append(token)
        now = decode(tokenizer, seen[start:])
        fresh = now[len(before) :]
        # an unfinished character decodes to U+FFFD, in byte-fallback tokenizers together with whole ones before it
        settled = fresh.rstrip(BROKEN) if now.startswith(before) else ""
        if len(settled) > shown:
            yield settled[shown:]
            shown = len(settled)
        if fresh and settled == fresh:
            start, shown, fresh = max(start, len(seen) - WINDOW), 0, ""
            before = decode(tokenizer, seen[start:])
    if fresh[shown:]:
        yield fresh[shown:]
