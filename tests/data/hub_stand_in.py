"""A web server on this machine that stands in for the hub and for other hosts, and can misbehave."""

import hashlib
import json
import threading
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REVISION = "a1" * 20


@dataclass
class StandIn:
    """Files by path, and what goes wrong with them."""

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """path -> after how many bytes of each next answer the connection ends"""
    statuses: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """path -> the status of each next answer; the last one stays"""
    redirects: dict[str, str] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    ranges: bool = True
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """(method, path, headers) of every request"""
    url: str = ""

    def put(self, id: str, name: str, content: bytes) -> None:
        """A file of a data set of the hub."""
        for revision in ("main", REVISION):
            self.files[f"/datasets/{id}/resolve/{revision}/{name}"] = content

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [path for _, path, _ in self.asked]

    def names_of(self, id: str) -> list[str]:
        """The files of a data set."""
        start = f"/datasets/{id}/resolve/main/"
        return sorted(path.removeprefix(start) for path in self.files if path.startswith(start))


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD as the hub does."""

    protocol_version = "HTTP/1.1"
    stand_in: StandIn

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        place, here = unquote(urlsplit(self.path).path), self.stand_in
        here.asked.append((self.command, place, dict(self.headers)))
        statuses = here.statuses.get(place)
        status = (statuses.pop(0) if len(statuses) > 1 else statuses[0]) if statuses else 200
        if status != 200:
            self.answer(status, b"", {"Retry-After": "0"} if status == 429 else {})
        elif place in here.redirects:
            self.answer(302, b"", {"Location": here.redirects[place], **here.headers.get(place, {})})
        elif place.startswith("/api/datasets/"):
            self.api(place.removeprefix("/api/datasets/"))
        elif place in here.files:
            self.file(place, here.files[place])
        else:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    def api(self, place: str) -> None:
        id = "/".join(place.split("/")[:2])
        names = self.stand_in.names_of(id)
        if not names:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in place:
            contents = [self.stand_in.files[f"/datasets/{id}/resolve/main/{name}"] for name in names]
            self.json(
                [
                    {"type": "file", "oid": hashlib.sha1(each).hexdigest(), "size": len(each), "path": name}
                    for name, each in zip(names, contents, strict=True)
                ]
            )
        else:
            self.json({"id": id, "sha": REVISION, "siblings": [{"rfilename": name} for name in names]})

    def json(self, value) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def file(self, place: str, content: bytes) -> None:
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {"ETag": tag, "X-Repo-Commit": REVISION, **self.stand_in.headers.get(place, {})}
        wanted = self.headers.get("Range") if self.stand_in.ranges else None
        if wanted and self.headers.get("If-Range", tag) == tag:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= len(content):
                self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[start:], headers, place)
        else:
            self.answer(200, content, headers, place)

    def answer(self, status: int, content: bytes, headers: dict[str, str], place: str = "") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cuts = self.stand_in.cuts.get(place)
        cut = cuts.pop(0) if cuts else None
        with suppress(OSError):
            self.wfile.write(content[:cut])
            self.wfile.flush()
        if cut is not None:
            self.close_connection = True
            self.connection.close()


class Quiet(ThreadingHTTPServer):
    """Says nothing of clients that went away."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


@contextmanager
def serving():
    """A stand-in on a free port."""
    stand_in = StandIn()
    server = Quiet(("127.0.0.1", 0), type("Bound", (Handler,), {"stand_in": stand_in}))
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
