"""Chat templates: messages in, the text a model reads out. One file each, declared in Jinja."""

from danlu.core.parts import Folder
from danlu.tokens.templates.base import Template

templates = Folder(__name__, Template)
