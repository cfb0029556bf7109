"""What every template does: a Jinja text, rendered by the same sandbox that serves chats."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from jinja2 import Template as JinjaTemplate
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import _compile_jinja_template

from danlu.core.errors import UserError
from danlu.core.parts import Part
from danlu.samples import Message
from danlu.tokens.shape import Shapes
from danlu.tokens.tokenizer import adds_bos, special_id

# Private-use characters, which no tokenizer's own text holds: what stands behind them is the template's writing.
PROBE = "\uf8f0\uf8f1\uf8f2"


@dataclass(frozen=True)
class Scribe:
    """A template made ready for one tokenizer: it writes chats as text."""

    jinja: str
    marks: dict[str, str]

    def write(self, messages: Sequence[Message], *, invite: bool = False, facts: dict[str, Any] | None = None) -> str:
        """The chat as text; `invite` adds the words that ask the assistant to speak."""
        return self._render(messages, invite, facts) if facts else self._shapes.write(messages, invite)

    def _render(self, messages: Sequence[Message], invite: bool, facts: dict[str, Any] | None = None) -> str:
        """The same by Jinja."""
        chat = [self._fields(message) for message in messages]
        names: dict[str, Any] = {"tools": None, "documents": None, **self.marks, **(facts or {})}
        return self._compiled.render(messages=chat, add_generation_prompt=invite, **names)

    def _fields(self, message: Message) -> dict[str, Any]:
        """A message as a Jinja text reads it; one that knows no tool calls is given them as words."""
        calls = message.facts.get("tool_calls")
        if not calls or "tool_calls" in self.jinja:
            return {"role": message.role, "content": message.content, **message.facts}
        told = [json.dumps(call["function"], ensure_ascii=False) for call in calls]
        return {"role": message.role, "content": "\n".join(filter(None, [message.content, *told]))}

    @cached_property
    def _compiled(self) -> JinjaTemplate:
        """Compiled by transformers, in its sandbox; its own call around this costs as much as the rendering."""
        return _compile_jinja_template(self.jinja)

    @cached_property
    def _shapes(self) -> Shapes:
        return Shapes(self.jinja, self._compiled.environment, self._render)

    @cached_property
    def ending(self) -> str:
        """What is written after an assistant's last word: `<|im_end|>` and a line's end in ChatML."""
        chat = [Message("user", "?"), Message("assistant", PROBE, train=True)]
        try:
            text = self.write(chat)
        except TemplateError as error:
            raise UserError(f"the chat template fails on a plain question and answer: {error}") from error
        if PROBE not in text:
            raise UserError("the chat template does not write what the assistant says, so nothing could be trained")
        return text.partition(PROBE)[2]


class Template(Part):
    """How a chat is written for a model."""

    jinja: ClassVar[str] = ""

    def jinja_text(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """The Jinja text."""
        return self.jinja

    def marks(self, tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
        """The special tokens that the Jinja text may write; a bos only where the tokenizer writes one itself."""
        return {"bos_token": "", "eos_token": ""} | special_tokens(tokenizer, with_bos=adds_bos(tokenizer))

    def scribe(self, tokenizer: PreTrainedTokenizerFast) -> Scribe:
        """This template for one tokenizer."""
        return Scribe(self.jinja_text(tokenizer), self.marks(tokenizer))

    def render(
        self, messages: Sequence[Message], tokenizer: PreTrainedTokenizerFast, *, add_generation_prompt: bool = False
    ) -> str:
        """The chat as one text."""
        return self.scribe(tokenizer).write(messages, invite=add_generation_prompt)

    def stop_strings(self, tokenizer: PreTrainedTokenizerFast) -> list[str]:
        """The texts that end an answer."""
        mark = self.scribe(tokenizer).ending.strip()
        return [mark] if mark else []


def special_tokens(tokenizer: PreTrainedTokenizerFast, *, with_bos: bool) -> dict[str, str]:
    """The tokenizer's special tokens by name, for a Jinja text to write."""
    named = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return {name: token for name, token in named.items() if with_bos or name != "bos_token"}


def stop_ids(tokenizer: PreTrainedTokenizerFast, template: Template) -> set[int]:
    """The ids that end an answer: eos and the template's own end of turn, where that is one token."""
    added = tokenizer.get_added_vocab()
    ends = {added[mark] for mark in template.stop_strings(tokenizer) if mark in added}
    return ends | set(special_id(tokenizer, "eos"))
