"""Answers that are compared or judged: a sample as the chats that are encoded, and what the data says of them."""

from danlu.samples import Conversation, Document, PreferencePair, Prompt, Rating, Sample

COMPARED = (PreferencePair, Rating)
"""samples whose rows keep what was said of them"""


def answers_of(sample: Sample) -> list[Conversation | Document | Prompt]:
    """The chats of a sample: one, or the prompt with each of its replies, the best first."""
    if isinstance(sample, PreferencePair):
        replies = [sample.chosen, sample.rejected, *sample.worse]
        return [Conversation([*sample.prompt, *reply], sample.facts) for reply in replies]
    return [Conversation(sample.messages, sample.facts) if isinstance(sample, Rating) else sample]


def judgement_of(sample: Sample) -> float:
    """1 for a good answer and 0 for a bad one; of a pair, its margin."""
    if isinstance(sample, Rating):
        return float(sample.good)
    return sample.margin if isinstance(sample, PreferencePair) else 0.0
