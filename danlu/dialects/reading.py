"""What a launch file asks for: settings of a recipe, and a plain line about what became of each of its keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NoReturn

from danlu.core.errors import UserError
from danlu.core.parts import did_you_mean

AUTO = (None, "auto")
"""what leaves a setting to the recipe; null is what a launcher's own trainer would have filled in"""


@dataclass
class Reading:
    """Settings by their dotted keys in a recipe, and what to tell."""

    origin: str
    """the file, or what else was read"""
    settings: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    """what a key became"""
    idle: dict[str, list[str]] = field(default_factory=dict)
    """keys that are not needed, by the reason why"""

    def becomes(self, found: str, setting: str, value: Any) -> None:
        """A key of the file is a setting of the recipe."""
        self.settings[setting] = value
        self.told.append(f"{self.origin}: {found} -> {setting}: {shown(value)}")

    def not_needed(self, found: str, why: str) -> None:
        """A key of the file has nothing to set."""
        self.idle.setdefault(why, []).append(found)

    @property
    def lines(self) -> list[str]:
        """Everything that there is to tell."""
        return [*self.told, *(f"{self.origin}: {', '.join(keys)}: {why}" for why, keys in self.idle.items())]

    def take_in(self, other: "Reading") -> None:
        """What another file says, which this one names."""
        self.settings |= other.settings
        self.told += other.lines

    def refuse(self, found: str, why: str) -> NoReturn:
        """A key of the file asks for what is wrong, or not to be had."""
        raise UserError(f"{self.origin}: {found}: {why}")


class Block:
    """One mapping of a file, whose keys are taken out; what is left in the end must be known to have no meaning."""

    def __init__(self, reading: Reading, tree: Mapping[str, Any], place: str = "") -> None:
        self.reading, self.place = reading, place
        self.left = {str(key): value for key, value in tree.items()}

    def at(self, key: str) -> str:
        """The dotted place of a key."""
        return f"{self.place}.{key}" if self.place else key

    def refuse(self, key: str, why: str) -> NoReturn:
        """What stands at a key is wrong, or not to be had."""
        self.reading.refuse(self.at(key), why)

    def take(self, key: str) -> Any:
        """The value of a key, or None where it is absent, null or left to the recipe."""
        value = self.left.pop(key, None)
        if value == "auto":
            self.reading.not_needed(self.at(key), "auto: the recipe's value stays")
        return None if value in AUTO else value

    def block(self, key: str) -> "Block":
        """The mapping at a key, empty where there is none."""
        value = self.take(key)
        if value is not None and not isinstance(value, dict):
            self.refuse(key, f"a mapping is expected, found {value!r:.80}")
        return Block(self.reading, value or {}, self.at(key))

    def number(self, key: str, *, least: float = 0) -> float | None:
        """A number that is not below `least`."""
        value = self.take(key)
        if value is None or (is_number(value) and value >= least):
            return value
        self.refuse(key, f'a number from {least:g} on, or "auto", is expected, found {value!r:.80}')

    def whole(self, key: str, *, least: int = 0) -> int | None:
        """A whole number; 5e8 is one too."""
        value = self.number(key, least=least)
        if value is not None and value != int(value):
            self.refuse(key, f"a whole number is expected, found {value!r}")
        return None if value is None else int(value)

    def switch(self, key: str) -> bool | None:
        """True or false."""
        value = self.take(key)
        if value is None or isinstance(value, bool):
            return value
        self.refuse(key, f'true, false or "auto" is expected, found {value!r:.80}')

    def word(self, key: str, *, known: list[str]) -> str | None:
        """One of some words, in any letters; returned as `known` has it."""
        value = self.take(key)
        if value is None:
            return None
        for each in known:
            if str(value).lower() == each.lower():
                return each
        hint = did_you_mean(str(value), known) or f" (known: {', '.join(known)})"
        self.refuse(key, f"found {value!r:.80}{hint}")

    def close(self, idle: Mapping[str, str], refused: Mapping[str, str] | None = None, *, taken: list[str]) -> None:
        """Say why the keys that are left need nothing; refuse those that cannot be had, or that nobody knows."""
        refused = refused or {}
        for key, value in self.left.items():
            if key in refused and active(value):
                self.refuse(key, refused[key])
            elif key in refused:
                self.reading.not_needed(self.at(key), "it is switched off")
            elif key in idle:
                self.reading.not_needed(self.at(key), idle[key])
            else:
                hint = did_you_mean(key, [*taken, *idle, *refused])
                self.refuse(key, f"unknown key{hint or '; take it out'}")


def is_number(value: Any) -> bool:
    """Whether a value counts something; true, false and the infinite do not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def active(value: Any) -> bool:
    """Whether a block, or a switch, asks for anything: it is on, or it counts more than one."""
    if isinstance(value, dict):
        return bool(value["enabled"]) if "enabled" in value else any(active(each) for each in value.values())
    return value is True or (is_number(value) and value > 1)


def shown(value: Any) -> str:
    """A setting in the words of a log: `{name: zero2, offload: optimizer}`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
