"""The words that every chat of a template begins with, such as its system prompt: encoded once, not for every row."""

import json
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from tokenizers import Encoding, Tokenizer

from danlu.samples import Message
from danlu.tokens.templates.base import Scribe

# Steps that look at nothing before the text they are given, so that a text may be cut behind an added token.
BLIND = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "ByteLevel", "Split", "Digits", "Punctuation", "WhitespaceSplit"}


@dataclass(frozen=True)
class Head:
    """A text and its ids; it ends with an added token, so what follows does not change them."""

    text: str
    encoding: Encoding


def head_of(scribe: Scribe, backend: Tokenizer) -> Head | None:
    """What two different chats begin with alike, up to an added token; none where a cut there could be felt."""
    if not cuts_cleanly(json.loads(backend.to_str())):
        return None
    try:
        one, other = (scribe.write([Message("user", letter)], invite=True) for letter in "ab")
    except TemplateError:
        return None
    alike = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    added = backend.get_added_tokens_decoder()
    encoding = backend.encode(one[:alike], add_special_tokens=False)
    last = max((n for n, id in enumerate(encoding.ids) if id in added), default=None)
    if last is None:
        return None
    mark, (_, end) = added[encoding.ids[last]], encoding.offsets[last]
    longer = any(token.content.startswith(mark.content) and token != mark for token in added.values())
    if mark.rstrip or mark.single_word or longer or not one[:end].endswith(mark.content):
        return None
    return Head(one[:end], backend.encode(one[:end], add_special_tokens=False))


def cuts_cleanly(tokenizer: dict[str, Any]) -> bool:
    """Whether every step before the model is blind to what came before."""
    steps = [*flat(tokenizer["normalizer"], "normalizers"), *flat(tokenizer["pre_tokenizer"], "pretokenizers")]
    return all(step["type"] in BLIND and not step.get("add_prefix_space") for step in steps)


def flat(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The steps of a sequence, or the only one."""
    if step is None:
        return []
    return [inner for one in step[key] for inner in flat(one, key)] if step["type"] == "Sequence" else [step]
