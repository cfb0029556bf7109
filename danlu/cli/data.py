"""`danlu data`: see what is trained on, and make data ready."""

from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(no_args_is_help=True, help="Look at data and make it ready.")
