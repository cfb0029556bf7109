"""How a stream is read and shuffled."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from danlu.core.parts import Config


class Streaming(Config):
    """Settings of a stream; `streaming: true` takes them as they are."""

    window: Annotated[int, Field(ge=1)] = 10_000
    """rows that are shuffled among each other, as well as the files, whose order is new each epoch"""
    lanes: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """parts that files are dealt into, each read by one rank; auto: a file each, at most 8; they decide the order"""
    prefetch: Annotated[int, Field(ge=1)] = 3
    """chunks of rows on their way for each worker, so that none waits"""


def yes_or_no(given: Any) -> Any:
    """`true` is every default, `false` is no streaming."""
    return {True: {}, False: None}[given] if isinstance(given, bool) else given


MaybeStreaming = Annotated[Streaming | None, BeforeValidator(yes_or_no)]
