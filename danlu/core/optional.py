"""Optional packages: which extra installs them, and the one sentence that says so."""

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires

REQUIREMENT = re.compile(r"""(?P<package>[\w.-]+).*;.*\bextra == ["'](?P<extra>\w+)["']""")


def extras(requirements: Iterable[str]) -> dict[str, str]:
    """Package, as it is imported -> the extra that installs it; from an installed package's list of requirements."""
    found = [match for match in map(REQUIREMENT.match, requirements) if match and match["extra"] != "dev"]
    return {match["package"].lower().replace("-", "_"): match["extra"] for match in found}


def install_command(package: str | None) -> str:
    """What to type to get a missing package."""
    top = (package or "").partition(".")[0]
    try:
        known = extras(requires("danlu") or ())
    except PackageNotFoundError:  # a source tree that was never installed
        known = {}
    return f"pip install 'danlu[{known[top]}]'" if top in known else f"pip install {top}"
