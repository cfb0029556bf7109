"""OpenAssistant's trees as pairs of replies that people ranked: https://huggingface.co/datasets/OpenAssistant/oasst1"""

from itertools import combinations, pairwise
from typing import Any, Literal

from danlu.data.formats._replies import preferred
from danlu.data.formats._tree import Node, Thread, Trees, chat_of, message_of, replies_of, threads
from danlu.data.formats.base import Unreadable
from danlu.samples import PreferencePair


class OpenAssistantRanked(Trees):
    """Pairs of ranked replies to one question."""

    gives = PreferencePair

    pairs: Literal["best_worst", "neighbours", "all"] = "best_worst"
    """which of several ranked replies are compared"""

    def read(self, row: dict[str, Any]) -> list[PreferencePair]:
        """The pairs of every question that has at least two ranked replies."""
        prompts = [thread for thread in threads(self.root(row)) if self.keeps(thread)]
        found = [pair for thread in prompts for pair in self.pairs_of(thread)]
        if not found:
            raise Unreadable("a tree without two ranked replies to one question")
        return found

    def pairs_of(self, thread: Thread) -> list[PreferencePair]:
        """The pairs at the end of one thread."""
        if thread[-1].get("role") != "prompter":
            return []
        ranked = best_first(thread[-1])
        if len(ranked) < 2:
            return []
        chosen = {
            "best_worst": [(ranked[0], ranked[-1])],
            "neighbours": pairwise(ranked),
            "all": combinations(ranked, 2),
        }
        return [
            preferred(chat_of(thread), [message_of(better, "assistant")], [message_of(worse, "assistant")])
            for better, worse in chosen[self.pairs]
            if better.get("text") != worse.get("text")
        ]


def best_first(question: Node) -> list[Node]:
    """The ranked replies to a question; rank 0 is the best."""
    ranked = [reply for reply in replies_of(question) if isinstance(reply.get("rank"), int)]
    return sorted(ranked, key=lambda reply: reply["rank"])
