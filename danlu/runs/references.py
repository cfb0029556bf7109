"""Log-probabilities of every row under a reference, worked out once for a model and its rows and kept in the cache."""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from danlu.core.files import write_atomic
from danlu.core.lock import Lock
from danlu.data.cache import TokenSet
from danlu.data.packing import best_fit
from danlu.data.pipeline import Data
from danlu.data.rows import Rows
from danlu.engine.engine import Engine
from danlu.models.policy import Policy
from danlu.objectives.base import Objective

log = logging.getLogger(__name__)


def give_references(
    objective: Objective, engine: Engine, policy: Policy, data: Data, cache: Path, made_of: dict[str, Any] | None
) -> None:
    """Let every row know its reference. `made_of` (JSON) is what decides it; where nobody can tell, nothing is kept."""
    for one in [*data.sets, *data.held_out_sets]:
        if made_of is None:
            one.reference = worked_out(objective, engine, policy, one, data.config.tokens_per_pack)
            continue
        key = hashlib.sha256(json.dumps(made_of | {"rows": one.key}, sort_keys=True).encode()).hexdigest()
        path = cache / f"{key}.bin"
        with Lock(cache / f"{key}.lock", wait=True, purpose=f"the reference of {one.name}"):
            if not path.is_file():
                found = worked_out(objective, engine, policy, one, data.config.tokens_per_pack)
                write_atomic(path, found.tobytes())
        one.reference = np.fromfile(path, np.float32)


def worked_out(objective: Objective, engine: Engine, policy: Policy, rows: TokenSet, capacity: int) -> np.ndarray:
    """[answers of all rows] fp32, row after row."""
    log.info("%s: the reference of %s answers is worked out", rows.name, f"{rows.num_answers:,}")
    found = np.zeros(rows.num_answers, np.float32)
    every = Rows([rows])
    for numbers in best_fit(rows.lengths.tolist(), capacity):
        logps = objective.computed_logps(policy, every.pack(numbers).to(engine.device)).float().cpu().numpy()
        found[list(places(rows, numbers))] = logps
    return found


def places(rows: TokenSet, numbers: list[int]) -> Iterator[int]:
    """Where the answers of some rows stand among all answers."""
    for number in numbers:
        first, after = rows.cut_offsets[number : number + 2].tolist()
        yield from range(number + first, number + 1 + after)
