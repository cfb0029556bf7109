"""Answers from a model in this process, over transformers' generate with its key-value cache."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig as Decoding
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.generation import BaseStreamer, StoppingCriteria, StoppingCriteriaList

from danlu.core.errors import UserError
from danlu.generate.base import Completion, GenerationConfig
from danlu.generate.pieces import decode, pieces
from danlu.models.load import base_of, load_model
from danlu.models.resolve import ADAPTER, resolve
from danlu.samples import Message
from danlu.tokens.encode import encode_prompt
from danlu.tokens.templates.base import Template, stop_ids
from danlu.tokens.templates.own import Own
from danlu.tokens.tokenizer import load_tokenizer


def complete(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    config: GenerationConfig,
    stops: set[int],
    pad: int,
    **kwargs: Any,
) -> list[list[int]]:
    """The ids that follow each prompt, up to and with the stop token. Only here is anything padded: on the left."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    device = model.device
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(config.seed)
            written = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=decoding(config, stops, pad),
                **kwargs,
            )
    finally:
        model.train(training)
    return [until_stop(row, stops) for row in written[:, longest:].tolist()]


def decoding(config: GenerationConfig, stops: set[int], pad: int) -> Decoding:
    """The same settings in transformers' words; what does not apply is left out, as it would warn."""
    sampled = {"temperature": config.temperature, "top_p": config.top_p, "top_k": config.top_k}
    return Decoding(
        max_new_tokens=config.max_tokens,
        do_sample=config.temperature > 0,
        repetition_penalty=config.repetition_penalty,
        eos_token_id=sorted(stops) or None,
        pad_token_id=pad,
        **(sampled if config.temperature > 0 else {}),
    )


def until_stop(ids: list[int], stops: set[int]) -> list[int]:
    """A row without the padding behind its stop token."""
    end = next((at for at, token in enumerate(ids) if token in stops), len(ids) - 1)
    return ids[: end + 1]


class Streamed(BaseStreamer, StoppingCriteria):
    """Hands over each token as it is written, and stops the writing when it is told to."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[int | None] = SimpleQueue()
        self.stopped = Event()
        self.in_prompt = True

    def put(self, value: Tensor) -> None:
        """Called by generate: first with the prompt, then with each token."""
        if not self.in_prompt:
            self.queue.put(int(value.item()))
        self.in_prompt = False

    def end(self) -> None:
        """Called by generate when it has finished."""

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """Whether to stop each row."""
        return torch.full((input_ids.shape[0],), self.stopped.is_set(), device=input_ids.device, dtype=torch.bool)


@dataclass(frozen=True)
class Local:
    """A model, its tokenizer and its template, ready to answer."""

    model: PreTrainedModel
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
        model = load_model(folder, dtype).to(device)
        tokenizer = load_tokenizer(tokenizer_folder(folder))
        return cls(model.eval(), tokenizer, template or Own())

    @property
    def stops(self) -> set[int]:
        """The ids that end an answer."""
        return stop_ids(self.tokenizer, self.template)

    def answer(self, chats: Sequence[Sequence[Message]], config: GenerationConfig) -> list[Completion]:
        """One answer to each chat; a greedy answer does not depend on its neighbours."""
        prompts = [self.prompt(chat) for chat in chats]
        written = complete(self.model, prompts, config, self.stops, self.pad)
        return [self.completion(len(prompt), ids) for prompt, ids in zip(prompts, written, strict=True)]

    def completion(self, num_prompt_tokens: int, ids: list[int]) -> Completion:
        """Ids as an answer."""
        stopped = bool(ids) and ids[-1] in self.stops
        ids = ids[:-1] if stopped else ids
        return Completion(decode(self.tokenizer, ids), ids, "stop" if stopped else "length", num_prompt_tokens)

    def stream(self, chat: Sequence[Message], config: GenerationConfig) -> Iterator[str]:
        """One answer in pieces; closing the iterator stops the model."""
        yield from pieces(self.tokenizer, self.stream_ids(self.prompt(chat), config))

    def stream_ids(self, prompt: list[int], config: GenerationConfig) -> Iterator[int]:
        """The answer's ids, without the stop token, as they are written by a thread of their own."""
        streamed, stops = Streamed(), self.stops
        failed: list[BaseException] = []

        def write() -> None:
            try:
                kwargs = {"streamer": streamed, "stopping_criteria": StoppingCriteriaList([streamed])}
                complete(self.model, [prompt], config, stops, self.pad, **kwargs)
            except BaseException as error:
                failed.append(error)
            finally:
                streamed.queue.put(None)

        thread = Thread(target=write, daemon=True)
        thread.start()
        try:
            while (token := streamed.queue.get()) is not None:
                if token not in stops:
                    yield token
        finally:
            streamed.stopped.set()
            thread.join()
        if failed:
            raise failed[0]

    @property
    def pad(self) -> int:
        """What shorter prompts are filled up with; it is masked, so any id would do."""
        return self.tokenizer.pad_token_id or 0

    def prompt(self, chat: Sequence[Message]) -> list[int]:
        """A chat as ids, checked against the longest that the model can read."""
        ids = encode_prompt(chat, self.tokenizer, self.template)
        limit = self.model.config.to_dict().get("max_position_embeddings")
        if limit is not None and len(ids) >= limit:
            raise UserError(f"the chat is {len(ids):,} tokens long and the model reads at most {limit:,}; begin again")
        return ids


def tokenizer_folder(folder: Path) -> Path:
    """Where a model's tokenizer lies: with an adapter, or else with its base."""
    own = (folder / "tokenizer_config.json").is_file() or not (folder / ADAPTER).is_file()
    return folder if own else base_of(folder)
