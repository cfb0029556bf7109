"""A server that judges: answers are posted to it as JSON, and it answers with their rewards."""

import os
import time
from collections.abc import Sequence
from typing import Annotated, Any

import httpx
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from danlu.core.errors import RewardError, UserError
from danlu.rewards.base import Answer, Court, Judge, Reward

SHAPE = '{"rewards": [number, …]}, one for each answer'
PASSING = {408, 409, 425, 429}
"""refusals that may pass, beside those of 500 and above"""


class Server(Reward):
    """POST {"answers": [{"prompt", "text", "expected", "finish"}, …]} -> {"rewards": [number, …]}"""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """where answers are posted to"""
    timeout_seconds: PositiveFloat = 30.0
    """how long one request may take"""
    retries: NonNegativeInt = 4
    """how often a request that failed is made again, before the run saves its state and stops"""
    wait_seconds: NonNegativeFloat = 1.0
    """before the first of these; twice as long before each one after it"""
    at_once: PositiveInt = 64
    """answers of one request"""
    key_from: str | None = None
    """environment variable with a key, sent as `Authorization: Bearer …`"""

    def open(self, court: Court) -> Judge:
        """A connection that is kept."""
        headers = {}
        if self.key_from is not None:
            key = os.environ.get(self.key_from)
            if not key:
                raise UserError(f"reward server {self.url}: the environment variable {self.key_from} is not set")
            headers["Authorization"] = f"Bearer {key}"
        client = httpx.Client(timeout=self.timeout_seconds, headers=headers)

        def judge(answers: Sequence[Answer]) -> list[float]:
            parts = [answers[start : start + self.at_once] for start in range(0, len(answers), self.at_once)]
            return [reward for part in parts for reward in self._asked(client, part)]

        return judge

    def _asked(self, client: httpx.Client, answers: Sequence[Answer]) -> list[float]:
        told = [
            {"prompt": one.prompt, "text": one.text, "expected": one.expected, "finish": one.finish} for one in answers
        ]
        problem, attempt = "", 0
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.wait_seconds * 2 ** (attempt - 1))
            try:
                response = client.post(self.url, json={"answers": told})
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.is_success:
                return self._read(response, len(answers))
            problem = f"status {response.status_code}: {response.text[:200]}"
            if response.status_code < 500 and response.status_code not in PASSING:
                break
        tries = f"after {attempt + 1} tries" if attempt else "at once"
        raise RewardError(f"reward server {self.url} gave no rewards, {tries}: {problem}")

    def _read(self, response: httpx.Response, count: int) -> list[float]:
        try:
            given: Any = response.json()
        except ValueError:
            given = None
        rewards = given.get("rewards") if isinstance(given, dict) else None
        if not isinstance(rewards, list) or len(rewards) != count:
            raise RewardError(f"reward server {self.url} answered {response.text[:200]!r}; expected {SHAPE}")
        return rewards
