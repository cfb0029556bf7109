"""A file of registered data sets, as LLaMA-Factory and those before it write them: dataset_info.json."""

import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

from danlu.core.errors import DataError
from danlu.core.parts import did_you_mean
from danlu.data.files.find import KINDS, kind_of

log = logging.getLogger(__name__)

FILE = "dataset_info.json"
COLUMNS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": "history",
    "system": "system",
    "tools": "tools",
    "messages": "messages",
    "chosen": "chosen",
    "rejected": "rejected",
    "kto_tag": "label",
}
"""their word for a column -> the key under which formats look for it"""
PLAIN = ("prompt", "query", "response", "history")
"""those that chats have not"""
MEDIA = ("images", "videos", "audios")
TAGS = {
    "user_tag": ("human", "user"),
    "assistant_tag": ("gpt", "assistant"),
    "observation_tag": ("observation", "tool"),
    "function_tag": ("function_call", "function_call"),
    "system_tag": ("system", "system"),
}
"""their word for a role -> (what it is called if they do not say, our role)"""
PLACES = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name", "file_name")
OTHERS = {"file_sha1", "formatting", "ranking", "subset", "split", "folder", "num_samples", "columns", "tags", "stage"}


def read_info(file: Path) -> dict[str, dict[str, Any]]:
    """Every entry of a dataset_info.json, by name."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON ({error}); mend it there") from error
    if not isinstance(entries, dict):
        raise DataError(f"{file}: a mapping of names to entries is expected, found {type(entries).__name__}")
    wrong = [name for name, entry in entries.items() if not isinstance(entry, dict)]
    if wrong:
        raise DataError(f"{file}: {wrong[0]}: an entry is a mapping, found {type(entries[wrong[0]]).__name__}")
    return entries


def settings_of(name: str, entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One entry as the settings of a source; relative paths begin at the registry's folder."""
    where = f"{folder / FILE}: {name}"
    for key in [key for key in entry if key not in (*PLACES, *OTHERS)]:
        tell(f"{where}: {key!r} has no effect{did_you_mean(key, [*PLACES, *OTHERS])}")
    of_file = not any(entry.get(key) for key in PLACES if key != "file_name")
    settings = {
        "path": path_of(where, entry, folder),
        "columns": columns_of(where, entry),
        "format": format_of_tags(where, entry),
        "max_rows": entry.get("num_samples"),
        "sha1": entry.get("file_sha1") if of_file else None,
    }
    return {key: value for key, value in settings.items() if value}


def path_of(where: str, entry: dict[str, Any], folder: Path) -> str | list[str]:
    """Where an entry's rows are: on the hub before a script's folder before a file."""
    if hub := entry.get("hf_hub_url"):
        asked = "&".join(f"{key}={entry[key]}" for key in ("subset", "split", "folder") if entry.get(key))
        return f"hf://datasets/{hub}" + (f"?{asked}" if asked else "")
    if script := entry.get("script_url"):
        return beside_script(where, folder / script)
    if cloud := entry.get("cloud_file_name"):
        return cloud
    if file := entry.get("file_name"):
        return str(folder / file)
    other = next((key for key in PLACES if entry.get(key)), None)
    if other:
        raise DataError(f"{where}: {other} is a hub that danlu does not read; fetch its files and give a file_name")
    raise DataError(f"{where}: says not where its rows are; give one of {', '.join(PLACES)}")


def beside_script(where: str, script: Path) -> list[str]:
    """The files of rows in a script's folder: the script itself is never run."""
    folder = script.parent if script.suffix == ".py" else script
    if not folder.is_dir():
        raise DataError(f"{where}: no folder {folder}; put the files of rows there (danlu runs no script)")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and has_rows(file)]
    json_files = [file for file in files if kind_of(file) in ("json", "lines")]
    if not files:
        raise DataError(f"{where}: {folder} holds a script, which danlu does not run, and no file of rows beside it")
    tell(f"{where}: danlu runs no script; the files of rows in {folder} are read instead")
    return [str(file) for file in json_files or files]


def has_rows(file: Path) -> bool:
    """Whether a file's name promises rows."""
    return not file.name.startswith((".", "README", "readme")) and any(
        suffix.lower() in KINDS for suffix in file.suffixes
    )


def columns_of(where: str, entry: dict[str, Any]) -> dict[str, str | None]:
    """Our keys and theirs. Where any column is named, those that are not (or are empty) are none at all."""
    named = words(where, entry, "columns")
    for media in [key for key in named if key in MEDIA]:
        tell(f"{where}: columns.{media} has no effect: only text is learnt from")
    for key in [key for key in named if key not in (*COLUMNS, *MEDIA)]:
        tell(f"{where}: columns.{key} has no effect{did_you_mean(key, list(COLUMNS))}")
    if not named:
        return {}
    if is_chat(where, entry):
        pairs = {COLUMNS[key]: named.get(key) or None for key in COLUMNS if key not in PLAIN}
        if pairs["messages"] in (None, "messages", "conversations"):
            del pairs["messages"]  # formats find it there
    elif named.get("prompt") and not any(named.get(key) for key in ("query", "response", "chosen", "kto_tag")):
        pairs = {"text": named["prompt"]}
    else:
        pairs = {COLUMNS[key]: named.get(key) or None for key in COLUMNS if key != "messages"}
    return {ours: theirs for ours, theirs in pairs.items() if ours != theirs}


def is_chat(where: str, entry: dict[str, Any]) -> bool:
    """Whether an entry's rows are lists of messages."""
    formatting = entry.get("formatting", "alpaca")
    if formatting not in ("alpaca", "sharegpt", "openai"):
        hint = did_you_mean(str(formatting), ["alpaca", "sharegpt", "openai"])
        raise DataError(f"{where}: unknown formatting {formatting!r} (known: alpaca, sharegpt, openai){hint}")
    return formatting != "alpaca"


def format_of_tags(where: str, entry: dict[str, Any]) -> dict[str, Any] | None:
    """How messages are written, where an entry says so; pairs and ratings are recognised from their rows."""
    tags = words(where, entry, "tags")
    if not is_chat(where, entry) or not tags or entry.get("ranking") or (entry.get("columns") or {}).get("kto_tag"):
        return None
    for key in [key for key in tags if key not in (*TAGS, "role_tag", "content_tag")]:
        tell(f"{where}: tags.{key} has no effect{did_you_mean(key, [*TAGS, 'role_tag', 'content_tag'])}")
    roles = {tags.get(key) or usual: ours for key, (usual, ours) in TAGS.items()}
    return {
        "name": "messages",
        "role": tags.get("role_tag") or "from",
        "content": tags.get("content_tag") or "value",
        "roles": roles,
    }


def words(where: str, entry: dict[str, Any], key: str) -> dict[str, str]:
    """A mapping of texts inside an entry; null and an empty text are the same."""
    given = entry.get(key) or {}
    if not isinstance(given, dict) or not all(isinstance(word, str | None) for word in given.values()):
        raise DataError(f"{where}: {key} is a mapping of words to words, found {given!r:.80}")
    return {key: word or "" for key, word in given.items()}


@cache
def tell(what: str) -> None:
    """Say something once."""
    log.warning("%s", what)
