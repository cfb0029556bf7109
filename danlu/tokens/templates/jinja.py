"""A template written in the recipe or in a file of your own."""

from pathlib import Path
from typing import Self

from pydantic import model_validator
from transformers import PreTrainedTokenizerFast

from danlu.core.errors import UserError
from danlu.tokens.templates.base import Template, special_tokens


class Jinja(Template):
    """Your own Jinja text."""

    text: str | None = None
    """the Jinja text itself"""
    path: Path | None = None
    """the file that holds the Jinja text"""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.path is None):
            raise ValueError("give either text: (the Jinja text) or path: (a file that holds it)")
        return self

    def jinja_text(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """The Jinja text."""
        if self.path is None:
            return self.text or ""
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such chat template")
        return self.path.read_text(encoding="utf-8")

    def marks(self, tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
        """Every special token, as `apply_chat_template` passes them."""
        return special_tokens(tokenizer, with_bos=True)
