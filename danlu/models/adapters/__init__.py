"""Adapters: which weights learn."""

from danlu.core.parts import Folder
from danlu.models.adapters.base import Adapter

adapters = Folder(__name__, Adapter)
