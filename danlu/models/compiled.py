"""torch's compiler for the blocks of a model; what it makes is kept from run to run."""

import os
from collections.abc import Iterable

from torch import nn

from danlu.core.cache_folder import cache_folder

PLACE = "TORCHINDUCTOR_CACHE_DIR"
"""where torch's compiler looks for what it made before; its own choice is in /tmp, which few machines keep"""


def compile_blocks(blocks: Iterable[nn.Module]) -> None:
    """Let the compiler fuse what is inside each block. One compilation serves all blocks and all lengths of packs."""
    os.environ.setdefault(PLACE, str(cache_folder() / "compiled"))
    for block in blocks:
        block.compile(dynamic=True)
