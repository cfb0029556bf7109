"""Asking a server for answers by ids, and reading what it says of them."""

import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import torch

from danlu.core.endpoint import Endpoint, tree_in
from danlu.core.errors import RewardError
from danlu.generate.base import GenerationConfig
from danlu.generate.writers._weights import Weights
from danlu.generate.writers.base import Desk, Draft, Pen

log = logging.getLogger(__name__)

WHOLE_TEMPERATURE = (
    "writer %s: at temperature %s its log-probabilities have to be those that were drawn from; "
    "start vLLM with --logprobs-mode processed_logprobs"
)
NO_IDS = (
    "writer %s gives no token_ids; its text is encoded again, and nothing is known of how likely the tokens were "
    "(no correction)"
)


class Remote(Pen):
    """A server at work in one run."""

    def __init__(
        self,
        server: Endpoint,
        client: httpx.Client,
        desk: Desk,
        weights: Weights,
        model: str | None,
        *,
        at_once: int,
        sync_every: int,
    ) -> None:
        self.server, self.client, self.desk, self.weights = server, client, desk, weights
        self.base, self.at_once, self.sync_every = server.url.rstrip("/"), at_once, sync_every
        self.model = self.listed() if model is None else model
        self.behind = None
        self.vocabulary = desk.policy.inner.get_input_embeddings().weight.shape[0]  # type: ignore[union-attr]
        self.said: set[str] = set()

    def listed(self) -> str:
        """The first model that the server has."""
        response = self.server.answer(self.client, f"{self.base}/v1/models", f"writer {self.base} lists no models")
        try:
            return str(tree_in(response)["data"][0]["id"])
        except (TypeError, LookupError) as error:
            text = response.text[:200]
            raise RewardError(f"writer {self.base} lists no models but {text!r}; name one: writer.model") from error

    def __call__(self, prompts: Sequence[list[int]], count: int, config: GenerationConfig) -> list[list[Draft]]:
        """One request for each prompt. The seeds are torch's; the same ones need not give the same answers."""
        if self.behind is None or self.behind >= self.sync_every:
            self.weights.give()
            self.behind = 0
        if config.temperature != 1:
            self.say(WHOLE_TEMPERATURE, config.temperature)
        seeds = torch.randint(2**31 - 1, (len(prompts),)).tolist()
        with ThreadPoolExecutor(self.at_once) as pool:
            asked = [pool.submit(self.ask, *each, count, config) for each in zip(prompts, seeds, strict=True)]
            return [one.result() for one in asked]

    def learnt(self) -> None:
        """What was given to the server is older now."""
        if self.behind is not None:
            self.behind += 1

    def close(self) -> None:
        """The server need not keep what it was given."""
        self.weights.close()
        self.client.close()

    def ask(self, prompt: list[int], seed: int, count: int, config: GenerationConfig) -> list[Draft]:
        """The answers to one prompt."""
        told = {
            "model": self.weights.name or self.model,
            "prompt": prompt,
            "n": count,
            "max_tokens": config.max_tokens,
            "min_tokens": config.min_tokens,
            "temperature": config.temperature,
            # a server takes what is left out here from the model's own folder
            "top_p": config.top_p,
            "top_k": config.top_k or -1,
            "min_p": 0.0,
            "repetition_penalty": config.repetition_penalty,
            "stop_token_ids": sorted(self.desk.stops),
            "seed": seed,
            "logprobs": 0,
            "return_token_ids": True,
        }
        url = f"{self.base}/v1/completions"
        response = self.server.answer(self.client, url, f"writer {self.base} wrote nothing", told)
        tree = tree_in(response)
        choices = tree.get("choices") if isinstance(tree, dict) else None
        if not isinstance(choices, list) or len(choices) != count:
            raise RewardError(f"writer {self.base} answered {response.text[:200]!r}; expected {count} choices")
        return [self.draft(choice, config.max_tokens) for choice in choices]

    def draft(self, choice: Any, limit: int) -> Draft:
        """One of them. Its end mark is put back where a server leaves it out."""
        ids, finish, logps = read(choice)
        if finish not in ("stop", "length") or (ids is None and not isinstance(choice.get("text"), str)):
            raise RewardError(f"writer {self.base} gave {str(choice)[:200]!r}; expected text or token_ids, and its end")
        if ids is None:
            self.say(NO_IDS)
            ids = self.desk.tokenizer.backend_tokenizer.encode(choice["text"], add_special_tokens=False).ids
        stops = self.desk.stops
        if finish == "stop" and not (ids and ids[-1] in stops):
            ids = [*ids, self.end(choice.get("stop_reason"))]
            logps = logps and [*logps, math.nan]
        ids, logps = ids[:limit], logps and logps[:limit]
        if not ids or any(not 0 <= token < self.vocabulary for token in ids):
            raise RewardError(f"writer {self.base} wrote {ids[:20]}; the policy knows ids below {self.vocabulary:,}")
        return Draft(ids, "stop" if ids[-1] in stops else "length", logps)

    def end(self, reason: Any) -> int:
        """The stop token that ended an answer."""
        usual = self.desk.tokenizer.eos_token_id
        if isinstance(reason, int) and reason in self.desk.stops:
            return reason
        return usual if isinstance(usual, int) and usual in self.desk.stops else min(self.desk.stops)

    def say(self, words: str, *more: Any) -> None:
        """Once in a run."""
        if words not in self.said:
            self.said.add(words)
            log.warning(words, self.base, *more)


def read(choice: Any) -> tuple[list[int] | None, Any, list[float] | None]:
    """Ids, why they end, and the log-probability of each, as far as a server tells them."""
    if not isinstance(choice, dict):
        return None, None, None
    ids, told = choice.get("token_ids"), choice.get("logprobs")
    if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
        return None, choice.get("finish_reason"), None
    logps = told.get("token_logprobs") if isinstance(told, dict) else None
    if not isinstance(logps, list) or len(logps) != len(ids):
        return ids, choice.get("finish_reason"), None
    return ids, choice.get("finish_reason"), [math.nan if one is None else float(one) for one in logps]
