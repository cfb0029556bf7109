"""The template that came with the tokenizer."""

from transformers import PreTrainedTokenizerFast

from danlu.core.errors import UserError
from danlu.tokens.templates.base import Template, special_tokens


class Own(Template):
    """The tokenizer's own chat template."""

    def jinja_text(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """The tokenizer's Jinja text, or the one called default where it has several."""
        if not tokenizer.chat_template:
            raise UserError("this tokenizer has no chat template of its own; name one, such as template: chatml")
        return str(tokenizer.get_chat_template())

    def marks(self, tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
        """Every special token, as `apply_chat_template` passes them."""
        return special_tokens(tokenizer, with_bos=True)
