"""A server that is asked over HTTP: where it is, how long it may take, and how often it is asked again."""

import os
import time
from typing import Annotated, Any

import httpx
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from danlu.core.errors import RewardError, UserError
from danlu.core.parts import Config

PASSING = {408, 409, 425, 429}
"""refusals that may pass, beside those of 500 and above"""


class Endpoint(Config):
    """Settings of a server without which a run cannot go on."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """where the server is"""
    timeout_seconds: PositiveFloat = 30.0
    """how long one request may take"""
    retries: NonNegativeInt = 4
    """how often a request that failed is made again, before the run saves its state and stops"""
    wait_seconds: NonNegativeFloat = 1.0
    """before the first of these; twice as long before each one after it"""
    key_from: str | None = None
    """environment variable with a key, sent as `Authorization: Bearer …`"""

    def client(self, who: str) -> httpx.Client:
        """A connection that is kept; `who` has this address, for people."""
        headers = {}
        if self.key_from is not None:
            key = os.environ.get(self.key_from)
            if not key:
                raise UserError(f"{who} {self.url}: the environment variable {self.key_from} is not set")
            headers["Authorization"] = f"Bearer {key}"
        return httpx.Client(timeout=self.timeout_seconds, headers=headers)

    def answer(self, client: httpx.Client, url: str, failed: str, tree: Any = None) -> httpx.Response:
        """What comes back for JSON, or for no question; a `RewardError` that begins with `failed` after all retries."""
        problem, attempt = "", 0
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.wait_seconds * 2 ** (attempt - 1))
            try:
                response = client.get(url) if tree is None else client.post(url, json=tree)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.is_success:
                return response
            problem = f"status {response.status_code}: {response.text[:200]}"
            if response.status_code < 500 and response.status_code not in PASSING:
                break
        tries = f"after {attempt + 1} tries" if attempt else "at once"
        raise RewardError(f"{failed}, {tries}: {problem}")


def tree_in(response: httpx.Response) -> Any:
    """The JSON of an answer; None where it is none."""
    try:
        return response.json()
    except ValueError:
        return None
