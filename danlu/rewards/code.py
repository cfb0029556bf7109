"""Programs: the code of an answer is run against the tests that its row has, in a box."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, ValidationInfo, model_validator

from danlu.core.errors import RewardError, SetupError
from danlu.rewards._box import Limits, run
from danlu.rewards._tests import block_of, tests_of
from danlu.rewards._words import compiled, matches
from danlu.rewards.base import Answer, Court, Judge, Reward

log = logging.getLogger(__name__)


class Code(Reward):
    """The share of the row's tests that an answer's Python passes: asserts, or JSON [{"input", "output"}, …]."""

    take: Annotated[str, AfterValidator(compiled)] | None = None
    """a pattern whose last match, or that match's first group, is the code; without, the last block between ```"""
    all_or_nothing: bool = False
    """1 where all tests pass, and else 0"""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """how long a program may run: all asserts of a row together, or one input"""
    memory_mb: Annotated[int, Field(ge=64)] = 512
    """memory of each of a program's processes"""
    processes: PositiveInt = 8
    """processes and threads of a program"""
    written_mb: PositiveInt = 8
    """what a program may print or write"""
    at_once: PositiveInt | None = None
    """programs that run at the same time; without, as many as there are cores"""
    isolation: Literal["required", "best"] = "required"
    """best: run programs also where the kernel has no namespaces or Landlock to keep them from files and the network"""

    @model_validator(mode="after")
    def _is_allowed(self, info: ValidationInfo) -> Self:
        if not (info.context or {}).get("allow_code"):
            raise ValueError("a model's code is run on this machine only when the recipe says `allow_code: true`")
        return self

    @property
    def limits(self) -> Limits:
        """Of one program."""
        return Limits(self.timeout_seconds, self.memory_mb, self.written_mb, self.processes)

    def open(self, court: Court) -> Judge:
        """Try the box, so that a machine without one is told before anything is learnt."""
        required = self.tried()
        workers = self.at_once or os.cpu_count() or 1

        def judge(answers: Sequence[Answer]) -> list[float]:
            with ThreadPoolExecutor(workers) as pool:
                return list(pool.map(partial(self.judge, required=required), answers))

        return judge

    def tried(self) -> bool:
        """Whether all doors can be shut; where they cannot and need not be, it is said."""
        try:
            self.prove(required=True)
        except SetupError as error:
            if self.isolation == "required":
                raise SetupError(
                    f"reward code: this machine cannot keep programs from its files and network: {error}. Run danlu "
                    "where the kernel offers that (Linux 5.13 or later; in a container, one that may make namespaces), "
                    "or say isolation: best if whatever these programs do is harmless here"
                ) from error
            self.prove(required=False)
            log.warning("reward code: programs are not kept from this machine's files and network: %s", error)
            return False
        return True

    def prove(self, *, required: bool) -> None:
        """Run a program that has to work."""
        ran = run({"main.py": "print(6 * 7)"}, ["{folder}/main.py"], self.limits, required=required)
        if ran.printed != b"42\n":
            raise SetupError(f"a program of one line did not run ({ran.code}: {ran.problem.strip()})")

    def judge(self, answer: Answer, *, required: bool) -> float:
        """One answer."""
        if answer.expected is None:
            raise RewardError(f"reward code: the row {answer.where} has no tests; they are the row's own answer")
        try:
            tests = tests_of(answer.expected)
        except ValueError as error:
            raise RewardError(f"reward code: the own answer of the row {answer.where} {error}") from error
        code = self.code_of(answer)
        if code is None:
            return 0.0
        passed = tests.passed(code, self.limits, required=required)
        return float(passed == tests.count) if self.all_or_nothing else passed / tests.count

    def code_of(self, answer: Answer) -> str | None:
        """The program that an answer gives."""
        if self.take is None:
            return block_of(answer.text)
        found = matches(self.take, answer.text, answer)
        return (found[-1][1] if found[-1].re.groups else found[-1][0]) if found else None
