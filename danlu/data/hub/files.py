"""The files of a data set on the hub, fetched into the hub's cache of this machine."""

import re
from pathlib import Path

import httpx
from huggingface_hub import HfApi, get_token, snapshot_download
from huggingface_hub.errors import (
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


def hub_files(wanted: HubSet) -> list[Path]:
    """The files of a data set, fetched into the hub's cache of this machine if they are not there."""
    try:
        revision, names = listing(wanted)
    except Unreachable as error:
        return cached_files(wanted, str(error))
    folder = snapshot(wanted, revision, names)
    return [folder / name for name in names]


class Unreachable(SetupError):
    """There is no way to the hub now."""


def listing(wanted: HubSet) -> tuple[str, list[str]]:
    """The revision that is meant, and which of its files hold the rows that are asked for."""
    info = info_of(wanted)
    assert info.sha is not None
    names = chosen([each.rfilename for each in info.siblings or []], wanted)
    if names:
        return info.sha, names
    if wanted.revision is None and not wanted.inside:
        converted = HubSet(wanted.id, CONVERTED, "", wanted.subset, wanted.split)
        info = info_of(converted, missing_is_fine=True)
        names = chosen([each.rfilename for each in info.siblings or []], converted) if info else []
        if info and info.sha and names:
            return info.sha, names
    raise DataError(
        f"{wanted.id}: no file of rows for {asked_for(wanted)}; see what is there at {wanted.page}/tree/main"
    )


def asked_for(wanted: HubSet) -> str:
    """What was asked for, for people."""
    parts = {"folder": wanted.inside, "subset": wanted.subset, "split": wanted.split}
    return ", ".join(f"{key} {value}" for key, value in parts.items() if value) or "it"


def info_of(wanted: HubSet, *, missing_is_fine: bool = False) -> DatasetInfo:
    """What the hub says of a data set: asked once, so that without a network the answer is at once no."""
    api = HfApi(endpoint=endpoint())
    try:
        return api.dataset_info(wanted.id, revision=wanted.revision, files_metadata=True, timeout=TIMEOUT_SECONDS)
    except RevisionNotFoundError as error:
        if missing_is_fine:
            return DatasetInfo(id=wanted.id, sha=None, siblings=[])
        raise DataError(f"{wanted.id}: no revision {wanted.revision!r} at {wanted.page}") from error
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


def snapshot(wanted: HubSet, revision: str, names: list[str]) -> Path:
    """The folder in the hub's cache that holds these files."""
    patterns = [re.sub(r"([\[*?])", r"[\1]", name) for name in names]
    try:
        return Path(
            snapshot_download(
                wanted.id, repo_type="dataset", revision=revision, allow_patterns=patterns, endpoint=endpoint()
            )
        )
    except HfHubHTTPError as error:
        raise refusal(wanted.id, error) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError) as error:
        raise SetupError(
            f"{wanted.id}: the connection to {endpoint()} broke ({first_line(error)}); try again"
        ) from error


def cached_files(wanted: HubSet, why: str) -> list[Path]:
    """The files as they were when there was a way to the hub."""
    names, folder = [], Path()
    for revision in [wanted.revision] if wanted.revision else ["main", CONVERTED]:
        try:
            folder = Path(snapshot_download(wanted.id, repo_type="dataset", revision=revision, local_files_only=True))
        except (LocalEntryNotFoundError, HfHubHTTPError):
            continue
        here = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
        names = names or chosen(here, wanted)
    if names:
        return [folder / name for name in names]
    name = wanted.id.partition("/")[2]
    raise SetupError(
        f"{wanted.id}: {why}, and its files are not on this machine; download them from {wanted.page} elsewhere, "
        f"put them into a folder such as data/{name} and give that folder instead"
    )


def first_line(error: Exception) -> str:
    """The first line of somebody else's words."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
