"""Answers from a model in this process."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from danlu.core.errors import UserError
from danlu.generate.base import Completion, GenerationConfig
from danlu.generate.complete import complete
from danlu.generate.pieces import decode, pieces
from danlu.generate.stream import stream
from danlu.models.load import check_writes, load_model, tokenizer_folder
from danlu.models.resolve import resolve
from danlu.samples import Message
from danlu.tokens.encode import encode_prompt
from danlu.tokens.templates.base import Template, stop_ids
from danlu.tokens.templates.own import Own
from danlu.tokens.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Local:
    """A model, its tokenizer and its template, ready to answer."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerFast
    template: Template

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        template: Template | None = None,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
    ) -> "Local":
        """The model of a run, adapter, folder, hub id or `builtin:NAME`; its template is the tokenizer's own."""
        folder = resolve(path)
        model = load_model(folder, dtype)
        check_writes(model, folder)
        model.to(torch.device(device))  # type: ignore[arg-type]
        return cls(model.eval(), load_tokenizer(tokenizer_folder(folder)), template or Own())

    def answer(self, chats: Sequence[Sequence[Message]], config: GenerationConfig) -> list[Completion]:
        """One answer to each chat; a greedy answer does not depend on its neighbours."""
        prompts = [self.prompt(chat) for chat in chats]
        stops = self.stops
        written = complete(self.model, prompts, config, stops, self.pad) if prompts else []
        return [self.completion(len(prompt), ids, stops) for prompt, ids in zip(prompts, written, strict=True)]

    def stream(self, chat: Sequence[Message], config: GenerationConfig) -> Generator[str, None, None]:
        """One answer in pieces; closing the iterator stops the model."""
        stops = self.stops
        write = partial(complete, self.model, [self.prompt(chat)], config, stops, self.pad)
        with closing(stream(write)) as tokens:
            yield from pieces(self.tokenizer, (token for token in tokens if token not in stops))

    def completion(self, num_prompt_tokens: int, ids: list[int], stops: set[int]) -> Completion:
        """Ids as an answer."""
        stopped = bool(ids) and ids[-1] in stops
        ids = ids[:-1] if stopped else ids
        return Completion(decode(self.tokenizer, ids), ids, "stop" if stopped else "length", num_prompt_tokens)

    @property
    def stops(self) -> set[int]:
        """The ids that end an answer."""
        return stop_ids(self.tokenizer, self.template)

    @property
    def pad(self) -> int:
        """What shorter prompts are filled up with."""
        pad = self.tokenizer.pad_token_id
        return pad if isinstance(pad, int) else 0

    def prompt(self, chat: Sequence[Message]) -> list[int]:
        """A chat as ids, checked against the longest that the model can read."""
        ids = encode_prompt(chat, self.tokenizer, self.template)
        limit = self.model.config.to_dict().get("max_position_embeddings")
        if limit is not None and len(ids) >= limit:
            raise UserError(f"the chat is {len(ids):,} tokens long and the model reads at most {limit:,}; begin again")
        return ids
