"""How much one optimiser step learns from."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from danlu.core.parts import Config


class Batch(Config):
    """The global batch: a number of rows or of tokens."""

    rows: Annotated[int, Field(ge=1)] | None = None
    """rows of one step; 16 if neither is given"""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """tokens of one step, in full packs"""

    @model_validator(mode="before")
    @classmethod
    def _sixteen_rows(cls, given: object) -> object:
        return {"rows": 16} if given == {} else given

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.rows is None) == (self.tokens is None):
            raise ValueError("give either rows: (such as 16) or tokens: (such as 32768)")
        return self
