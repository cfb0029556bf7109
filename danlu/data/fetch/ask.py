"""Asking a server for a file: redirects are followed by hand, so that a token never leaves the hub's own host."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from time import time
from urllib.parse import urljoin, urlsplit

import httpx
from huggingface_hub import get_token

from danlu.core.errors import DataError, SetupError, UserError
from danlu.data.hub.address import endpoint

MOST_REDIRECTS = 10
TIMEOUT = httpx.Timeout(30, connect=10)
PASSING = (408, 425, 429, 500, 502, 503, 504)
SHA256 = re.compile(r'"?([0-9a-f]{64})"?')


class Refused(UserError):
    """The server will not give the file. `passing` if it may do so later, after `wait` seconds if it says when."""

    def __init__(self, message: str, *, passing: bool = False, wait: float | None = None) -> None:
        super().__init__(message)
        self.passing, self.wait = passing, wait


class Forbidden(Refused, SetupError):
    """It asks who we are."""

    exit_code = SetupError.exit_code


class Missing(Refused, DataError):
    """It has no such file."""

    exit_code = DataError.exit_code


def client() -> httpx.Client:
    """What asks; the environment's proxies hold, its .netrc does not."""
    return httpx.Client(timeout=TIMEOUT, follow_redirects=False, headers={"User-Agent": "danlu"}, auth=no_auth)


def no_auth(request: httpx.Request) -> httpx.Request:
    """Leave a request as it is: httpx would take passwords from .netrc otherwise."""
    return request


@contextmanager
def asked(client: httpx.Client, url: str, headers: dict[str, str]) -> Iterator[tuple[httpx.Response, str | None]]:
    """The answer to a request for a file, and its SHA-256 where the hub tells it."""
    first, at_hub, linked = url, True, None
    for _ in range(MOST_REDIRECTS):
        check_scheme(url, first)
        at_hub = at_hub and is_hub(url)
        token = get_token() if at_hub else None
        with client.stream(
            "GET", url, headers=headers | ({"Authorization": f"Bearer {token}"} if token else {})
        ) as found:
            if at_hub and (match := SHA256.fullmatch(found.headers.get("X-Linked-Etag", ""))):
                linked = match[1]
            if not found.has_redirect_location:
                refuse(found, first, with_token=bool(token))
                yield found, linked
                return
            url = urljoin(url, found.headers["Location"])
    raise Refused(f"{first}: sent on {MOST_REDIRECTS} times and never to a file")


def check_scheme(url: str, first: str) -> None:
    """Only the web, and never from a secured address to an open one."""
    place, begun = urlsplit(url), urlsplit(first)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise Refused(f"{first}: leads to {place.scheme}:, which is no address of the web")
    if begun.scheme == "https" and place.scheme != "https":
        raise Refused(f"{first}: leads to {place.hostname} without encryption, which is not followed")


def is_hub(url: str) -> bool:
    """Whether an address is of the very host that the token is for."""
    return origin(url) == origin(endpoint())


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port."""
    place = urlsplit(url)
    return place.scheme, place.hostname, place.port or {"http": 80, "https": 443}.get(place.scheme)


def refuse(response: httpx.Response, url: str, *, with_token: bool) -> None:
    """Raise for an answer that holds no file."""
    status = response.status_code
    if status in (401, 403):
        raise Forbidden(forbidden(url, status, with_token=with_token))
    if status in (404, 410):
        raise Missing(f"{url}: not there ({status}); it may have moved")
    if status in PASSING:
        raise Refused(f"{url}: busy or failing ({status})", passing=True, wait=retry_after(response))
    if status >= 400 and status != 416:
        raise Refused(f"{url}: refused ({status})")


def forbidden(url: str, status: int, *, with_token: bool) -> str:
    """What to do where a file is not for everybody."""
    if not is_hub(url):
        return f"{url}: not open to everybody ({status})"
    if with_token:
        return f"{url}: the token of your account does not open it ({status}); accept the terms on its page"
    return f"{url}: asks for an account ({status}); accept the terms on its page and set HF_TOKEN (or `hf auth login`)"


def retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait, where the server says."""
    said = response.headers.get("Retry-After", "")
    if said.isdigit():
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time())
    except (ValueError, TypeError):
        return None
