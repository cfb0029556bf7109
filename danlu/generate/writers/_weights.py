"""A policy's weights on their way to a server: a folder is written, and the server is told to read it."""

import logging
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from peft import PeftModel

from danlu.core.endpoint import Endpoint
from danlu.core.errors import RewardError
from danlu.core.files import folder_at_once
from danlu.generate.writers.base import Desk

log = logging.getLogger(__name__)

LORA = "vLLM takes adapters with --enable-lora, --max-lora-rank and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
WHOLE = "vLLM takes weights with VLLM_SERVER_DEV_MODE=1"


class Weights:
    """What a server has been given; adapters have a name there, under which the policy is asked for."""

    def __init__(
        self, server: Endpoint, client: httpx.Client, desk: Desk, *, sync_url: str | None, folder: Path
    ) -> None:
        self.server, self.client, self.desk, self.sync_url = server, client, desk, sync_url
        self.kind = "adapter" if isinstance(desk.policy.model, PeftModel) else "model"
        self.token = secrets.token_hex(4)  # a server remembers the names of runs that were killed
        self.folder = folder.absolute() / self.token
        self.count = 0
        self.newest: Path | None = None
        self.name: str | None = None

    def give(self) -> None:
        """The policy's weights of now; what was given before goes."""
        self.count += 1
        folder = self.folder / f"{self.count:06d}"
        try:
            with folder_at_once(folder) as aside:
                self.desk.policy.save(self.desk.adapter, aside)
        except OSError as error:
            raise RewardError(f"weights for the writer {self.server.url} could not be written: {error}") from error
        if self.sync_url is not None:
            self.tell(self.sync_url, {"folder": str(folder), "kind": self.kind}, "it said no")
        elif self.kind == "adapter":
            name, before = f"danlu-{self.token}-{self.count}", self.name
            self.tell("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)}, LORA)
            self.name = name
            if before is not None:
                self.tell("/v1/unload_lora_adapter", {"lora_name": before}, LORA)
        else:
            reading = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
            self.tell("/collective_rpc", reading, WHOLE)
            self.tell("/reset_prefix_cache", {}, WHOLE)  # what it remembers of prompts is of the weights before
        before, self.newest = self.newest, folder
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)

    def tell(self, url: str, tree: dict[str, Any], hint: str) -> None:
        """One order, which has to be carried out."""
        where = url if url.startswith("http") else self.server.url.rstrip("/") + url
        self.server.answer(self.client, where, f"writer {where} did not take the policy's weights ({hint})", tree)

    def close(self) -> None:
        """Take away what lies there; a server that is gone needs nothing."""
        if self.name is not None:
            try:
                url = self.server.url.rstrip("/") + "/v1/unload_lora_adapter"
                self.client.post(url, json={"lora_name": self.name})
            except httpx.HTTPError as error:
                log.warning("writer %s still has the adapter %s (%s)", self.server.url, self.name, error)
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.desk.folder.rmdir()
