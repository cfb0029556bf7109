"""Writers: who writes the answers that a policy learns from."""

from danlu.core.parts import Folder
from danlu.generate.writers.base import Writer

writers = Folder(__name__, Writer)
