"""How an error ends a process: in words for people, and for danlu's launcher in a note, so that it is told once."""

import json
import os
import sys
import time
import traceback
from pathlib import Path

from rich.console import Console

from danlu.core.errors import UserError
from danlu.core.launcher import BY_DANLU, has_lost_others, launched, rank_of


def fail(error: BaseException) -> int:
    """Tell an error, or leave it to the launcher to tell; returns the exit code."""
    for_people = isinstance(error, UserError)
    words = str(error) if for_people else "".join(traceback.format_exception(error)).rstrip()
    left = leave_note(words, for_people=for_people, lost_others=has_lost_others(error))
    if not (left and BY_DANLU in os.environ):
        tell(words, for_people=for_people)
    return error.exit_code if isinstance(error, UserError) else 1


def tell(words: str, *, for_people: bool = True) -> None:
    """An error on the terminal, with the rank that it is of if there are several."""
    who = f"rank {rank_of()}: " if launched() and rank_of() else ""
    if not for_people:
        print(who + words, file=sys.stderr)
        return
    Console(stderr=True).print(f"{who}error:", style="bold red", end=" ")
    Console(stderr=True, soft_wrap=True).print(words, markup=False, highlight=False)


def leave_note(words: str, *, for_people: bool, lost_others: bool) -> bool:
    """Write the file that torch's agents read when a rank has failed; whether there was one to write."""
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if place is None or not launched():
        return False
    now = time.time()
    ours = {"words": words, "for_people": for_people, "lost_others": lost_others, "at": now}
    theirs = {"message": words, "extraInfo": {"py_callstack": "", "timestamp": str(int(now))}}
    try:
        Path(place).write_text(json.dumps({"message": theirs, "danlu": ours}))
    except OSError:
        return False
    return True
