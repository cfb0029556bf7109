"""Mixtures: how several sources become one stream of rows. One file each."""

from danlu.core.parts import Folder
from danlu.data.mixtures.base import Mixture

mixtures = Folder(__name__, Mixture)
