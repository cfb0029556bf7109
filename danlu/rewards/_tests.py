"""What a row tests a program with: statements of Python, or pairs of what is given and what has to be printed."""

import ast
import json
import re
import secrets
from dataclasses import dataclass

from danlu.rewards._box import Limits, Ran, run

SETS_UP = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
ASSIGNS = (ast.Assign, ast.AnnAssign, ast.AugAssign)
SHAPE = 'Python whose asserts are the tests, or a JSON list of {"input": text, "output": text}'
FENCE = re.compile(r"`{3,}|~{3,}")
IMPORTED = "import runpy; runpy.run_path('{folder}/answer.py', run_name='answer')"
"""what stands under `if __name__ == "__main__"` is not run where functions are tested"""


@dataclass(frozen=True, slots=True)
class Statements:
    """Python: each statement that is no import, definition or assignment is a test, passed if nothing is raised."""

    module: ast.Module
    count: int

    def passed(self, code: str, limits: Limits, *, required: bool) -> int:
        """All in one process, behind the code; a test that takes too long fails those after it too."""
        token = secrets.token_hex(16)
        body: list[ast.stmt] = []
        for statement in self.module.body:
            body.append(statement if is_set_up(statement) else watched(statement, f"{token} {len(body)}\n"))
        tests = ast.unparse(ast.Module(body, []))
        ran = run({"answer.py": f"{code}\n\n{tests}\n"}, ["-c", IMPORTED, "{told}"], limits, required=required)
        told = {line for line in ran.told.decode(errors="replace").splitlines() if line.startswith(token)}
        return min(len(told), self.count)


@dataclass(frozen=True, slots=True)
class Cases:
    """Pairs: the program reads the one and has to print the other; blanks at the end of a line do not count."""

    pairs: list[tuple[str, str]]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.pairs)

    def passed(self, code: str, limits: Limits, *, required: bool) -> int:
        """Each in a process of its own."""
        right = 0
        for given, wanted in self.pairs:
            ran = run({"answer.py": code}, ["{folder}/answer.py"], limits, given=given, required=required)
            right += printed(ran) == lines_of(wanted)
        return right


Tests = Statements | Cases


def tests_of(expected: str) -> Tests:
    """The tests that a row's answer is; a `ValueError` that says why it is none."""
    try:
        tree = json.loads(expected)
    except ValueError:
        return statements_of(expected)
    rows = tree if isinstance(tree, list) else []
    pairs = [(row.get("input"), row.get("output")) for row in rows if isinstance(row, dict)]
    found = [(given, wanted) for given, wanted in pairs if isinstance(given, str) and isinstance(wanted, str)]
    if not found or len(found) != len(rows):
        raise ValueError(f"holds no tests; expected {SHAPE}")
    return Cases(found)


def statements_of(text: str) -> Statements:
    """Tests in Python."""
    text = block_of(text) or text
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"is no Python ({error}); expected {SHAPE}") from error
    count = sum(not is_set_up(statement) for statement in module.body)
    if not count:
        raise ValueError(f"tests nothing; expected {SHAPE}")
    return Statements(module, count)


def is_set_up(statement: ast.stmt) -> bool:
    """Whether a statement only makes something ready."""
    return isinstance(statement, SETS_UP + ASSIGNS)


def watched(statement: ast.stmt, word: str) -> ast.stmt:
    """A statement that says a word where nothing is raised, and lets the next one come in any case."""
    told = f"open(int(__import__('sys').argv[-1]), 'wb', 0, closefd=False).write({word.encode()!r})"
    [frame] = ast.parse(f"try:\n    {told}\nexcept BaseException:\n    pass\n").body
    assert isinstance(frame, ast.Try)
    frame.body.insert(0, statement)
    return frame


def printed(ran: Ran) -> list[str] | None:
    """The lines of a program that ended well."""
    return lines_of(ran.printed.decode(errors="replace")) if ran.code == 0 else None


def lines_of(text: str) -> list[str]:
    """Without blanks at their ends, and without empty ones at the end of all."""
    return [line.rstrip() for line in text.rstrip().split("\n")]


def block_of(text: str) -> str | None:
    """The last block between ``` or ~~~, without the word behind its first mark; None where there is none."""
    found: str | None = None
    mark, lines = "", []
    for line in text.split("\n"):
        fence = FENCE.match(line.strip())
        if mark and line.strip() == mark:
            found, mark = "\n".join(lines), ""
        elif mark:
            lines.append(line)
        elif fence:
            mark, lines = fence[0], []
    return found
