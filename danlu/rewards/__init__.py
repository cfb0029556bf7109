"""Rewards: what an answer that a model wrote is worth."""

from danlu.core.parts import Folder
from danlu.rewards.base import Reward

rewards = Folder(__name__, Reward)
