"""Formats: a row as found in a file in, a sample out. One file each."""

from danlu.core.parts import Folder
from danlu.data.formats.base import Format

formats = Folder(__name__, Format)
