"""Objectives: what the model is trained to do."""

from danlu.core.parts import Folder
from danlu.objectives.base import Objective

objectives = Folder(__name__, Objective)
