"""A server that judges: answers are posted to it as JSON, and it answers with their rewards."""

from collections.abc import Sequence

import httpx
from pydantic import PositiveInt

from danlu.core.endpoint import Endpoint, tree_in
from danlu.core.errors import RewardError
from danlu.rewards.base import Answer, Court, Judge, Reward

SHAPE = '{"rewards": [number, …]}, one for each answer'


class Server(Reward, Endpoint):
    """POST {"answers": [{"prompt", "text", "expected", "finish"}, …]} -> {"rewards": [number, …]}"""

    at_once: PositiveInt = 64
    """answers of one request"""

    def open(self, court: Court) -> Judge:
        """A connection that is kept."""
        client = self.client("reward server")

        def judge(answers: Sequence[Answer]) -> list[float]:
            parts = [answers[start : start + self.at_once] for start in range(0, len(answers), self.at_once)]
            return [reward for part in parts for reward in self._asked(client, part)]

        return judge

    def _asked(self, client: httpx.Client, answers: Sequence[Answer]) -> list[float]:
        told = [
            {"prompt": one.prompt, "text": one.text, "expected": one.expected, "finish": one.finish} for one in answers
        ]
        response = self.answer(client, self.url, f"reward server {self.url} gave no rewards", {"answers": told})
        given = tree_in(response)
        rewards = given.get("rewards") if isinstance(given, dict) else None
        if not isinstance(rewards, list) or len(rewards) != len(answers):
            raise RewardError(f"reward server {self.url} answered {response.text[:200]!r}; expected {SHAPE}")
        return rewards
