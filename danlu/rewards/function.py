"""A Python function of the user's own file."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Self

from pydantic import ValidationInfo, model_validator

from danlu.core.errors import RewardError
from danlu.rewards.base import Answer, Court, Judge, Reward, shown


class Function(Reward):
    """`def my_reward(answer) -> float` with answer.prompt, .text, .expected (or None), .finish and .ids."""

    function: str
    """my_file:my_reward; runs on this machine, so the recipe has to say `allow_code: true`"""

    @model_validator(mode="after")
    def _is_allowed_and_there(self, info: ValidationInfo) -> Self:
        if not (info.context or {}).get("allow_code"):
            raise ValueError(f"{self.function!r} is code; it runs only when the recipe says `allow_code: true`")
        found(self.function)
        return self

    def open(self, court: Court) -> Judge:
        """The function, one answer at a time."""
        function = found(self.function)

        def judge(answers: Sequence[Answer]) -> list[float]:
            return [self._asked(function, answer) for answer in answers]

        return judge

    def _asked(self, function: Callable[[Answer], float], answer: Answer) -> float:
        try:
            return function(answer)
        except Exception as error:
            raise RewardError(
                f"reward {self.function} failed on {shown(answer)}: {type(error).__name__}: {error}"
            ) from error


def found(name: str) -> Callable[[Answer], float]:
    """`my_file:my_reward` as a function; a file where danlu is started is found too."""
    module, _, wanted = name.partition(":")
    if not (module and wanted):
        raise ValueError(f"{name!r}: a function is written my_file:my_reward")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        function: Callable[[Answer], float] | None = vars(import_module(module)).get(wanted)
    except ModuleNotFoundError as missing:
        raise ValueError(f"{name!r}: no module {missing.name!r} in {Path.cwd()} or installed") from missing
    if not callable(function):
        raise ValueError(f"{name!r}: {module} has no function {wanted!r}")
    return function
