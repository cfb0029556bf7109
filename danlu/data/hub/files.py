"""The files of a data set on the hub, fetched into the hub's cache of this machine."""

import re
from dataclasses import dataclass
from pathlib import Path

import httpx
from huggingface_hub import HfApi, get_cached_repo_tree, get_token, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import DatasetInfo

from danlu.core.errors import DataError, SetupError
from danlu.data.hub.address import HubSet, endpoint
from danlu.data.hub.choice import chosen

CONVERTED = "refs/convert/parquet"
"""where the hub keeps the rows of data sets that are only a script"""
TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Listing:
    """Which files of a data set are meant, in which version."""

    revision: str
    """as people name it"""
    sha: str
    """as it is for ever"""
    names: list[str]


class Unreachable(SetupError):
    """There is no way to the hub now."""


def hub_files(wanted: HubSet) -> list[Path]:
    """The files of a data set, fetched into the hub's cache of this machine if they are not there."""
    try:
        meant = listing(wanted)
    except Unreachable as error:
        return cached_files(wanted, str(error))
    return snapshot(wanted, meant)


def listing(wanted: HubSet) -> Listing:
    """Ask the hub which files hold the rows that are meant."""
    for revision in revisions(wanted):
        info = info_of(wanted, revision)
        names = chosen([each.rfilename for each in info.siblings or []], wanted) if info else []
        if info and info.sha and names:
            return Listing(revision, info.sha, names)
    there = f"{wanted.page}/tree/main"
    raise DataError(f"{wanted.id}: no file of rows for {asked_for(wanted)}; see what is there: {there}")


def revisions(wanted: HubSet) -> list[str]:
    """Where rows are looked for: where people say, or on the main branch, then among what the hub made of scripts."""
    return [wanted.revision] if wanted.revision else ["main"] if wanted.inside else ["main", CONVERTED]


def asked_for(wanted: HubSet) -> str:
    """What was asked for, for people."""
    parts = {"folder": wanted.inside, "subset": wanted.subset, "split": wanted.split}
    return ", ".join(f"{key} {value}" for key, value in parts.items() if value) or "it"


def info_of(wanted: HubSet, revision: str) -> DatasetInfo | None:
    """What the hub says of a data set: asked once, so that without a network the answer is at once no."""
    api = HfApi(endpoint=endpoint())
    try:
        return api.dataset_info(wanted.id, revision=revision, timeout=TIMEOUT_SECONDS)
    except RevisionNotFoundError as error:
        if revision == CONVERTED:
            return None
        raise DataError(f"{wanted.id}: no revision {revision!r} at {wanted.page}") from error
    except (OfflineModeIsEnabled, httpx.TransportError) as error:
        raise Unreachable(f"{endpoint()} cannot be reached ({first_line(error)})") from error
    except HfHubHTTPError as error:
        raise refusal(wanted.id, error) from error


def refusal(id: str, error: HfHubHTTPError) -> Exception:
    """Why the hub gives nothing, for people."""
    page = f"{endpoint()}/datasets/{id}"
    if isinstance(error, GatedRepoError) or error.response.status_code in (401, 403):
        return SetupError(closed(id, page))
    if isinstance(error, RepositoryNotFoundError | EntryNotFoundError):
        return DataError(f"{id}: neither a file or folder here, nor a data set of the hub ({page})")
    return Unreachable(f"{endpoint()} answers {error.response.status_code}")


def closed(id: str, page: str) -> str:
    """What to do about a data set that is not for everybody."""
    if get_token():
        return f"{id}: the token in HF_TOKEN does not open it; accept its terms with that account at {page}"
    return (
        f"{id}: not open to everybody, or not there; accept its terms at {page}, "
        "then set HF_TOKEN to a token of your account (or `hf auth login`)"
    )


def snapshot(wanted: HubSet, meant: Listing, *, offline: bool = False) -> list[Path]:
    """The files, in the hub's cache."""
    patterns = [re.sub(r"([\[*?])", r"[\1]", name) for name in meant.names]
    try:
        found = snapshot_download(
            wanted.id,
            repo_type="dataset",
            revision=meant.revision,
            allow_patterns=patterns,
            local_files_only=offline,
            endpoint=endpoint(),
        )
    except HfHubHTTPError as error:
        raise refusal(wanted.id, error) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError) as error:
        why = f"the connection to {endpoint()} broke ({first_line(error)})"
        raise Unreachable(f"{wanted.id}: {why}; try again, it goes on from there") from error
    files = [Path(found) / name for name in meant.names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise SetupError(f"{wanted.id}: {missing[0]} did not come; the data set changed meanwhile, try again")
    return files


def cached_files(wanted: HubSet, why: str) -> list[Path]:
    """The files as they were when there was a way to the hub; all of them or none."""
    for revision in revisions(wanted):
        try:
            tree = get_cached_repo_tree(wanted.id, repo_type="dataset", revision=revision)
            if names := chosen([each.path for each in tree], wanted):
                return snapshot(wanted, Listing(revision, "", names), offline=True)
        except (CachedRepoTreeNotFoundError, Unreachable):
            continue
    name = wanted.id.partition("/")[2]
    raise Unreachable(
        f"{wanted.id}: {why}, and its files are not on this machine; download them from {wanted.page} elsewhere, "
        f"put them into a folder such as data/{name} and give that folder instead"
    )


def first_line(error: Exception) -> str:
    """The first line of somebody else's words."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
