"""vLLM, or another server with OpenAI's completions: it writes, and is given the policy's weights as they change."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from danlu.core.endpoint import Endpoint
from danlu.core.errors import UserError
from danlu.generate.writers._remote import Remote
from danlu.generate.writers._weights import Weights
from danlu.generate.writers.base import Desk, Pen, Writer
from danlu.models.adapters.base import Adapter
from danlu.models.adapters.lora import Lora


class Server(Writer, Endpoint):
    """POST /v1/completions with a prompt's ids; adapters and weights reach it through a folder that it can read."""

    timeout_seconds: PositiveFloat = 600.0
    """how long one request may take: the answers to one prompt, or the reading of weights"""
    model: str | None = None
    """how the server calls the model; without, the first that it lists"""
    at_once: PositiveInt = 64
    """prompts that are asked for at the same time"""
    sync_every: PositiveInt = 1
    """steps after which the server is given the policy's weights again"""
    sync_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """where {"folder": …, "kind": "adapter" or "model"} is posted for new weights; without, as vLLM takes them"""
    folder: Path | None = None
    """where weights lie for the server, by a name that it knows too; without, in the run's folder"""

    def refusal(self, adapter: Adapter) -> str | None:
        """VLLM loads plain adapters."""
        if self.sync_url is None and isinstance(adapter, Lora) and (adapter.dora or adapter.embeddings):
            more = "dora" if adapter.dora else "embeddings"
            return f"vLLM loads no adapter with {more}; leave it out, or name a server of your own with writer.sync_url"
        return None

    def open(self, desk: Desk) -> Pen:
        """Ask it for its models."""
        if desk.ranks.count > 1:
            raise UserError("writer server: it is told of new weights by one process only; train on one")
        client = self.client("writer server")
        folder = desk.folder if self.folder is None else self.folder
        weights = Weights(self, client, desk, sync_url=self.sync_url, folder=folder)
        return Remote(self, client, desk, weights, self.model, at_once=self.at_once, sync_every=self.sync_every)
