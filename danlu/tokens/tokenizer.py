"""Tokenizers from a local folder: loaded safely, made ready, and recognised again by a fingerprint."""

import hashlib
import json
from pathlib import Path
from typing import Literal

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from danlu.core.errors import UserError

FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json", "spiece.model")


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerFast:
    """The tokenizer of a local model folder; runs no code from it and asks nothing."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; a tokenizer is read from the folder of a model")
    if not any((folder / name).is_file() for name in FILES):
        raise UserError(f"{folder}: holds no tokenizer (looked for {', '.join(FILES)})")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"{folder}: {type(tokenizer).__name__} is no fast tokenizer; save its tokenizer.json there")
    return ready(tokenizer)


def ready(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Padding always has a token, and no truncation or padding that was saved by accident shortens a row."""
    if tokenizer.pad_token is None:
        # an existing token, so that no id is added; unk first: padding with eos hides real ends from other tools
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token or tokenizer.bos_token
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 over everything that decides which ids a text becomes."""
    told = {
        "backend": tokenizer.backend_tokenizer.to_str(),
        "template": tokenizer.chat_template,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def adds_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer itself begins a text with bos."""
    first = tokenizer.backend_tokenizer.encode("").ids[:1]
    return bool(first) and first == special_id(tokenizer, "bos")


def special_id(tokenizer: PreTrainedTokenizerFast, name: Literal["bos", "eos"]) -> list[int]:
    """The id of bos or eos; none where the tokenizer has no such token."""
    token = tokenizer.special_tokens_map.get(f"{name}_token")
    id = tokenizer.backend_tokenizer.token_to_id(str(token)) if token is not None else None
    return [] if id is None else [id]
