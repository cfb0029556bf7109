"""`builtin:NAME`: the models that Danlu makes itself, each once, into its cache."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from danlu.core.cache_folder import cache_folder, made_once
from danlu.core.errors import UserError
from danlu.core.parts import did_you_mean
from danlu.models.builtin.smollm2 import make_smollm2
from danlu.models.builtin.tiny import ARCHITECTURES, make_tiny

PREFIX = "builtin:"
ROOM = "builtin-1"
"""the folder of the cache; its number goes up when a maker writes something else than before"""

MAKERS: dict[str, Callable[[Path], None]] = {
    "smollm2-135m": make_smollm2,
    **{f"tiny-{architecture}": partial(make_tiny, architecture) for architecture in ARCHITECTURES},
}


def builtin_folder(name: str) -> Path:
    """The Hugging Face folder of a built-in model, made at its first use."""
    if name not in MAKERS:
        hint = did_you_mean(name, list(MAKERS)) or f" (known: {', '.join(MAKERS)})"
        raise UserError(f"there is no {PREFIX}{name}{hint}")
    return made_once(cache_folder() / ROOM / name, MAKERS[name])
