"""Supervised fine-tuning: next-token prediction on the assistant's words and end marks only.

The mask comes with the pack, so this is pre-training on other targets.
"""

from danlu.objectives.pretrain import Pretrain
from danlu.samples import Conversation, Document


class SFT(Pretrain):
    """Learn to answer as the assistant does in the data."""

    learns_from = (Conversation, Document)
