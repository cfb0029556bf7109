"""The data section of a recipe."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from danlu.core.parts import Config
from danlu.data.batch import Batch
from danlu.data.length import TooLong
from danlu.data.limits import Limits
from danlu.data.mixtures import mixtures
from danlu.data.mixtures.base import Mixture
from danlu.data.mixtures.concat import Concat
from danlu.data.sources import Sources
from danlu.data.stream.config import MaybeStreaming
from danlu.tokens.templates import templates
from danlu.tokens.templates.base import Template


class DataConfig(Config):
    """Which rows are learnt from, and how they become steps."""

    sources: Sources
    """a path, a list of paths or of sources, or names with a path or source each"""
    held_out: Annotated[float, Field(ge=0)] = 0
    """rows of each source kept for evaluation: a share below 1, or a number of rows"""
    held_out_sources: Sources = []
    """sources that are only evaluated on"""
    template: Annotated[Template | None, templates] = None
    """how a chat is written; the tokenizer's own template if not given, or `default` where it has none"""
    max_length: Annotated[int, Field(ge=2)] = 2048
    """the most tokens of one row, or of each answer with its prompt where a row compares several"""
    too_long: TooLong = "truncate_right"
    """what happens to longer rows: error, truncate_left, truncate_right, drop, split or sample (a window by chance)"""
    documents: Literal["apart", "together"] = "apart"
    """together: rows are joined and cut to exactly pack_tokens, and see each other; max_length cuts nothing then"""
    limits: Limits = Limits()
    """shares of lost rows that stop a run before it trains"""
    batch: Batch = Batch()
    """how much one optimiser step learns from, over all devices"""
    pack_tokens: Literal["auto"] | Annotated[int, Field(ge=2)] = 2048
    """tokens that are run at once: memory, not the result, depends on it; auto is what the device has room for"""
    mixture: Annotated[Mixture, mixtures] = Concat()
    """how several sources become one stream of rows: all of them, by shares, in turn, or by a policy file"""
    streaming: MaybeStreaming = None
    """read, tokenise and pack on the way, for data larger than memory or disk; true, or settings; wants engine.steps"""
    shuffle: bool = True
    """a new order each epoch, or the order of the files"""
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """processes that tokenise, 0 for none but the trainer; the result is the same for any number"""
    cache: Path | None = None
    """where tokenised rows are kept; $DANLU_CACHE or ~/.cache/danlu if not given"""
    trust_times: bool = True
    """a file whose size, time and inode are those of before is not read again to see that it is the same"""

    @property
    def tokens_per_pack(self) -> int:
        """Tokens of the packs that rows are dealt into; with auto the engine joins or parts them to what fits."""
        return self.max_length if self.pack_tokens == "auto" else self.pack_tokens
