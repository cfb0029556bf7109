"""Log-probabilities of every row under a reference, worked out once for a model and its rows and kept in the cache."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from danlu.core.files import write_atomic
from danlu.core.lock import Lock
from danlu.core.ranks import Ranks
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
        path, ranks = cache / f"{key}.bin", engine.ranks
        with alone(cache / f"{key}.lock", one.name, ranks):
            if not ranks.first(path.is_file()):
                found = worked_out(objective, engine, policy, one, data.config.tokens_per_pack)
                if ranks.leads:
                    write_atomic(path, found.tobytes())
            # another machine may have a cache of its own
            one.reference = ranks.first(np.fromfile(path, np.float32) if ranks.leads else None)


def alone(path: Path, name: str, ranks: Ranks) -> AbstractContextManager[object]:
    """Other runs wait; the processes of this one work together."""
    return Lock(path, wait=True, purpose=f"the reference of {name}") if ranks.leads else nullcontext()


def worked_out(objective: Objective, engine: Engine, policy: Policy, rows: TokenSet, capacity: int) -> np.ndarray:
    """[answers of all rows] fp32, row after row; each process works on its share of the packs."""
    log.info("%s: the reference of %s answers is worked out", rows.name, f"{rows.num_answers:,}")
    every, ranks = Rows([rows]), engine.teams
    packs = best_fit(rows.lengths.tolist(), capacity)
    own, most = ranks.share(packs), -(-len(packs) // ranks.num_shares)
    found = []
    for number in range(most if engine.in_step else len(own)):
        pack = every.pack(own[number] if number < len(own) else packs[0])
        found.append(objective.computed_logps(policy, pack.to(engine.device)).float().cpu().numpy())
    whole = np.zeros(rows.num_answers, np.float32)
    for numbers, logps in zip(packs, ranks.dealt(ranks.gather(found[: len(own)])), strict=True):
        whole[list(places(rows, numbers))] = logps
    return whole


def places(rows: TokenSet, numbers: list[int]) -> Iterator[int]:
    """Where the answers of some rows stand among all answers."""
    for number in numbers:
        first, after = rows.cut_offsets[number : number + 2].tolist()
        yield from range(number + first, number + 1 + after)
