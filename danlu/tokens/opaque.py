"""Whether a Jinja text only repeats what messages say, never looks into it: then it can be written without Jinja.

Anything that is not known to be harmless counts as a look.
"""

from dataclasses import dataclass, field
from typing import Literal

from jinja2 import nodes

Looks = Literal["never", "at the ends", "inside"]
"""at the ends: it trims, which does nothing to words that are trimmed already"""

TYPES = {"string", "defined", "undefined", "none", "mapping", "boolean"}
WHOLE = {"get", "items", "values", "keys", "copy", "pop", "popitem", "update", "setdefault", "previtem", "nextitem"}
"""ways to more of a message than one named field"""
REDIRECTING = (nodes.FilterBlock, nodes.AssignBlock, nodes.CallBlock, nodes.Include, nodes.Import, nodes.Extends)


def looks(tree: nodes.Template) -> Looks:
    """How far a Jinja text looks into the words of its messages."""
    seen = Reading()
    before = (0, 0, 0)
    while True:  # a name may be given a message's words further down than where it is used
        seen.visit(tree, None)
        now = (len(seen.lists), len(seen.messages), len(seen.words))
        if now == before or seen.inside:
            break
        before = now
    return "inside" if seen.inside else "at the ends" if seen.trims else "never"


@dataclass
class Reading:
    """What the names of a Jinja text stand for, and whether words are looked into."""

    lists: set[str] = field(default_factory=lambda: {"messages"})
    messages: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    inside: bool = False
    trims: bool = False

    def visit(self, node: nodes.Node, parent: nodes.Node | None) -> None:
        """Judge a node and everything under it."""
        if isinstance(node, REDIRECTING) or odd(node, parent):
            self.inside = True
        elif isinstance(node, nodes.Expr):
            kind = self.kind(node)
            if kind is not None and not self.harmless(node, kind, parent):
                self.inside = True
        for child in node.iter_child_nodes():
            self.visit(child, node)

    def kind(self, node: nodes.Node) -> str | None:
        """What an expression stands for: the messages, one of them, its words, or nothing of them."""
        if isinstance(node, nodes.Name):
            kinds = {"list": self.lists, "message": self.messages, "words": self.words}
            return next((kind for kind, names in kinds.items() if node.name in names), None)
        if isinstance(node, nodes.Getattr):
            return "words" if node.attr == "content" else None
        if isinstance(node, nodes.Getitem):
            return self.kind_of_item(node)
        if isinstance(node, nodes.Filter):
            return "words" if node.node is not None and trimmed(node) and self.kind(node.node) == "words" else None
        if isinstance(node, nodes.Call):
            return "words" if trimmed(node) and self.kind(node.node.node) == "words" else None  # pyright: ignore
        joined = isinstance(node, nodes.Add | nodes.Concat | nodes.And | nodes.Or | nodes.CondExpr)
        return "words" if joined and any(self.kind(one) == "words" for one in values_of(node)) else None

    def kind_of_item(self, node: nodes.Getitem) -> str | None:
        """What stands in brackets behind something."""
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            return "words" if node.arg.value == "content" else None
        if self.kind(node.node) == "list":
            return "list" if isinstance(node.arg, nodes.Slice) else "message"
        return None

    def harmless(self, node: nodes.Expr, kind: str, parent: nodes.Node | None) -> bool:
        """Whether what is done with this expression is the same whatever the words are."""
        if isinstance(node, nodes.Name) and node.ctx == "store":
            return True
        if isinstance(parent, nodes.Assign):
            return self.named(parent.target, {"list": self.lists, "message": self.messages, "words": self.words}[kind])
        if kind == "list":
            return self.harmless_list(node, parent)
        if kind == "message":
            return isinstance(parent, nodes.Getattr) or (
                isinstance(parent, nodes.Getitem)
                and isinstance(parent.arg, nodes.Const)
                and isinstance(parent.arg.value, str)
            )
        return self.harmless_words(node, parent)

    def harmless_list(self, node: nodes.Expr, parent: nodes.Node | None) -> bool:
        """Going through the messages, counting them, or taking some."""
        if isinstance(parent, nodes.For) and parent.iter is node:
            return parent.test is None and self.named(parent.target, self.messages)
        if isinstance(parent, nodes.Filter):
            return parent.name in ("length", "count") and not parent.args
        return isinstance(parent, nodes.Getitem) and parent.node is node

    def harmless_words(self, node: nodes.Expr, parent: nodes.Node | None) -> bool:
        """Writing them, joining them to others, trimming them, or asking whether there are any."""
        if isinstance(parent, nodes.Filter | nodes.Getattr):
            self.trims = True
            return trimmed(parent) if isinstance(parent, nodes.Filter) else parent.attr == "strip"
        if isinstance(parent, nodes.Test):
            return parent.name in TYPES
        if isinstance(parent, nodes.If):
            return parent.test is node
        written = (nodes.Output, nodes.Add, nodes.Concat, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr)
        return isinstance(parent, written) or (isinstance(parent, nodes.Call) and trimmed(parent))

    def named(self, target: nodes.Node, names: set[str]) -> bool:
        """Remember what a name stands for; anything but a plain name is too clever."""
        if not isinstance(target, nodes.Name):
            return False
        names.add(target.name)
        return True


def odd(node: nodes.Node, parent: nodes.Node | None) -> bool:
    """Whether this is a way to more of a message than one named field, or a strip that takes more than space."""
    if not isinstance(node, nodes.Getattr):
        return False
    return node.attr in WHOLE or (node.attr == "strip" and not (isinstance(parent, nodes.Call) and trimmed(parent)))


def trimmed(node: nodes.Filter | nodes.Call) -> bool:
    """Whether this is `| trim` or `.strip()`."""
    plain = not (node.args or node.kwargs or node.dyn_args or node.dyn_kwargs)
    if isinstance(node, nodes.Filter):
        return plain and node.name == "trim"
    return plain and isinstance(node.node, nodes.Getattr) and node.node.attr == "strip"


def values_of(node: nodes.Node) -> list[nodes.Node]:
    """What an expression may give: not what it only asks."""
    if isinstance(node, nodes.CondExpr):
        return [one for one in (node.expr1, node.expr2) if one is not None]
    return list(node.iter_child_nodes())
