"""The held-out loss before the first step, measured once for a model and its held-out rows."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from danlu.core.files import write_json
from danlu.evals.held_out import HeldOut

CODE = 2
"""count up when the same model and rows give another loss"""


class Baseline:
    """Where that loss is kept, under a hash of everything that decides it (JSON)."""

    def __init__(self, folder: Path, made_of: dict[str, Any]) -> None:
        key = hashlib.sha256(json.dumps(made_of | {"code": CODE}, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"{key}.json"

    def read(self) -> HeldOut | None:
        """What an earlier run has measured, if one has."""
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return HeldOut(**kept)

    def write(self, found: HeldOut) -> None:
        """Keep it for the next run. A cache that cannot be written costs time, not the run."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, asdict(found))
        except OSError:
            return
