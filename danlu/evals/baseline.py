"""The held-out loss before the first step, measured once for a model and its held-out rows."""

import hashlib
import json
from pathlib import Path
from typing import Any

from danlu.core.files import write_json

CODE = 1
"""count up when the same model and rows give another loss"""


class Baseline:
    """Where that loss is kept, under a hash of everything that decides it (JSON)."""

    def __init__(self, folder: Path, made_of: dict[str, Any]) -> None:
        key = hashlib.sha256(json.dumps(made_of | {"code": CODE}, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"{key}.json"

    def read(self) -> tuple[float, dict[str, float]] | None:
        """The loss over all sources and of each, if an earlier run has measured it."""
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return kept["loss"], kept["sources"]

    def write(self, loss: float, sources: dict[str, float]) -> None:
        """Keep it for the next run. A cache that cannot be written costs time, not the run."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"loss": loss, "sources": sources})
        except OSError:
            return
