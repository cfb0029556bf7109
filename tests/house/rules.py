"""The rules of the house: each reads a package's source and returns one line for each offence."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DANLU = REPOSITORY / "danlu"
MOST_LINES, MOST_FUNCTION_LINES = 400, 80
GENERIC = {"util", "utils", "helper", "helpers", "misc", "common", "constants", "manager", "managers", "extras"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "hydra"}
UNSAFE_YAML = {"yaml.load", "yaml.full_load", "yaml.unsafe_load"}
UNSAFE_CALLS = {"eval", "exec", "__import__", "os.system", "os.popen"} | UNSAFE_YAML
MUST_BE = {"weights_only": True, "shell": False, "allow_pickle": False}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def sources(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Every Python file of a package, with its place in it."""
    for path in sorted(root.rglob("*.py")):
        yield path.relative_to(root), ast.parse(path.read_text(encoding="utf-8"))


def floors() -> list[set[str]]:
    """The floors from the ground up, as pyproject.toml gives them to import-linter."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return [set(re.findall(r"\w+", layer)) for layer in reversed(layers)]


def imported(node: ast.AST, place: Path, package: str) -> list[str]:
    """What one statement imports from the package, as dotted places inside it."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        here = [package, *place.parts[:-1]]
        start = [*here[: len(here) - node.level + 1]] if node.level else []
        names = [".".join([*start, *filter(None, [node.module]), alias.name]) for alias in node.names]
    elif isinstance(node, ast.Call) and dotted(node.func).endswith("import_module"):
        names = [name.value for name in node.args if is_string(name)]
    else:
        return []
    return [name.removeprefix(f"{package}.") for name in names if name.startswith(f"{package}.")]


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute, or nothing."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def floors_hold(root: Path) -> list[str]:
    """A file imports only from its own floor or from those before it, late imports too."""
    height = {name: number for number, names in enumerate(floors()) for name in names}
    offences = []
    for place, tree in sources(root):
        mine = height.get(place.parts[0].removesuffix(".py"))
        if mine is None:
            if place.name not in ("__init__.py", "__main__.py"):
                offences.append(f"{place}: stands on no floor of pyproject.toml")
            continue
        for node in ast.walk(tree):
            for name in imported(node, place, root.name):
                if height.get(name.partition(".")[0], -1) > mine:
                    offences.append(f"{place}:{node.lineno}: imports {name}, which is a higher floor")
    return offences


def imports_are_at_the_top(root: Path) -> list[str]:
    """Only the command line imports late: it must say `--help` before torch is there."""
    return [
        f"{place}:{node.lineno}: a late import"
        for place, tree in sources(root)
        if place.parts[0] not in ("cli", "cli.py")
        for function in ast.walk(tree)
        if isinstance(function, FUNCTIONS)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def every_field_has_help(root: Path) -> list[str]:
    """The string under a setting is its help in the command line, the schema, the docs and the web form."""
    nodes = [(place, node) for place, tree in sources(root) for node in ast.walk(tree)]
    classes = [(place, node) for place, node in nodes if isinstance(node, ast.ClassDef)]
    kinds = {"Config", "Part"}
    while more := {c.name for _, c in classes if kinds & {base_name(base) for base in c.bases}} - kinds:
        kinds |= more
    offences = []
    for place, node in classes:
        if node.name not in kinds or not kinds & {base_name(base) for base in node.bases}:
            continue
        for field, below in zip(node.body, [*node.body[1:], None], strict=True):
            if is_setting(field) and not is_text(below):
                offences.append(f"{place}:{field.lineno}: {node.name}.{ast.unparse(field.target)} has no help under it")
    return offences


def base_name(base: ast.expr) -> str:
    """`Part` of `Part`, `parts.Part` and `Part[Sample]`."""
    return dotted(base.value if isinstance(base, ast.Subscript) else base).rpartition(".")[2]


def is_setting(node: ast.stmt) -> bool:
    """An annotated field that people can set."""
    if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
        return False
    return not node.target.id.startswith("_") and "ClassVar" not in ast.unparse(node.annotation)


def is_text(node: ast.stmt | None) -> bool:
    """A string that stands alone, as docstrings and field help do."""
    return isinstance(node, ast.Expr) and is_string(node.value)


def is_string(node: ast.AST | None) -> bool:
    """A string written out."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def every_folder_has_a_door_sign(root: Path) -> list[str]:
    """Each package's `__init__.py` begins with one line that says what is inside."""
    offences = []
    for folder in sorted({path.parent for path in root.rglob("*.py")} - {root}):
        door = folder / "__init__.py"
        sign = ast.get_docstring(ast.parse(door.read_text(encoding="utf-8"))) if door.exists() else None
        if not sign or "\n" in sign:
            offences.append(f"{door.relative_to(root)}: needs a docstring of one line")
    return offences


def names_say_what_is_inside(root: Path) -> list[str]:
    """`base.py` is the only generic file name."""
    return [
        f"{path.relative_to(root)}: a generic name"
        for path in sorted(root.rglob("*"))
        if "__pycache__" not in path.parts and GENERIC & set(path.stem.lower().split("_"))
    ]


def files_and_functions_are_short(root: Path) -> list[str]:
    """A file is one idea; a function of more lines has chapters that want names."""
    offences = []
    for place, tree in sources(root):
        lines = len((root / place).read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES:
            offences.append(f"{place}: {lines} lines (at most {MOST_LINES})")
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS) and (length := node.end_lineno - node.lineno + 1) > MOST_FUNCTION_LINES:
                offences.append(
                    f"{place}:{node.lineno}: {node.name} has {length} lines (at most {MOST_FUNCTION_LINES})"
                )
    return offences


def public_things_are_explained(root: Path) -> list[str]:
    """Modules and public classes and functions have docstrings; a method may rely on its base's."""
    explained, silent = set(), []
    for place, tree in sources(root):
        if ast.get_docstring(tree) is None:
            silent.append((f"{place}: the module", "", False))
        for holder, node in definitions(tree):
            inherits = isinstance(holder, ast.ClassDef) and bool(holder.bases)
            if ast.get_docstring(node) is None:
                silent.append((f"{place}:{node.lineno}: {node.name}", node.name, inherits))
            elif isinstance(holder, ast.ClassDef):
                explained.add(node.name)
    return [f"{what} has no docstring" for what, name, inherits in silent if not (inherits and name in explained)]


def definitions(holder: ast.Module | ast.ClassDef) -> Iterator[tuple[ast.AST, ast.ClassDef | ast.FunctionDef]]:
    """The public classes, functions and methods of a module, with what each stands in."""
    for node in holder.body:
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)) and not node.name.startswith("_"):
            if not any(dotted(mark).endswith((".setter", "overload")) for mark in node.decorator_list):
                yield holder, node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node)


def nothing_unsafe(root: Path) -> list[str]:
    """No way from a file or a setting to running code: no pickles, no shell, no eval, no remote code, no full YAML."""
    return [
        f"{place}:{node.lineno}: {found}"
        for place, tree in sources(root)
        for node in ast.walk(tree)
        for found in unsafe(node)
    ]


def unsafe(node: ast.AST) -> Iterator[str]:
    """What is unsafe about one node."""
    if isinstance(node, ast.Import):
        yield from (f"import {a.name}" for a in node.names if a.name.partition(".")[0] in UNSAFE_MODULES)
    elif isinstance(node, ast.ImportFrom):
        whole = (node.module or "").partition(".")[0] in UNSAFE_MODULES
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (f"import {name}" for name in names if whole or name in UNSAFE_CALLS)
    elif isinstance(node, ast.Call):
        called, keywords = dotted(node.func), {k.arg: k.value for k in node.keywords}
        if called in UNSAFE_CALLS:
            yield f"{called}()"
        if called == "torch.load" and "weights_only" not in keywords:
            yield "torch.load without weights_only=True"
        for word, safe in MUST_BE.items():
            if word in keywords and not (isinstance(keywords[word], ast.Constant) and keywords[word].value is safe):
                yield f"{word}={ast.unparse(keywords[word])}"
        if is_true(keywords.get("trust_remote_code")):
            yield "trust_remote_code=True"
    elif isinstance(node, ast.Dict):
        named = {key.value: value for key, value in zip(node.keys, node.values, strict=True) if is_string(key)}
        if is_true(named.get("trust_remote_code")):
            yield "trust_remote_code: True"


def is_true(node: ast.AST | None) -> bool:
    """Literally `True`."""
    return isinstance(node, ast.Constant) and node.value is True


RULES = (
    floors_hold,
    imports_are_at_the_top,
    every_field_has_help,
    every_folder_has_a_door_sign,
    names_say_what_is_inside,
    files_and_functions_are_short,
    public_things_are_explained,
    nothing_unsafe,
)
