"""A server that judges: what is sent, and a server that fails, hangs, dies or says something else."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from danlu.core.errors import RewardError, UserError
from danlu.rewards import rewards
from danlu.rewards.base import judged
from tests.rewards.conftest import answer

Say = Callable[[dict], tuple[int, object]]


@pytest.fixture
def serve() -> Iterator[Callable[[list[Say]], tuple[str, list]]]:
    """`serve([reply, …])`: the url, and the requests so far; the last reply is given again and again."""
    started: list[ThreadingHTTPServer] = []

    def serve(replies: list[Say]) -> tuple[str, list]:
        seen: list = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.append((given, self.headers.get("Authorization")))
                status, said = replies[min(len(seen), len(replies)) - 1](given)
                body = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *given: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.handle_error = lambda *given: None  # a client that waits no longer has closed the line
        started.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", seen

    yield serve
    for server in started:
        server.shutdown()
        server.server_close()


def lengths(given: dict) -> tuple[int, object]:
    return 200, {"rewards": [len(one["text"]) for one in given["answers"]]}


def busy(given: dict) -> tuple[int, object]:
    return 503, b"busy"


def hangs(given: dict) -> tuple[int, object]:
    time.sleep(0.3)
    return lengths(given)


def of(url: str, court, count: int = 3, **settings) -> list[float]:
    reward = rewards["server"](url=url, **({"retries": 2, "wait_seconds": 0.0} | settings))
    return judged("server", reward.open(court), [answer("a" * n, "b") for n in range(count)])


def test_answers_are_sent_in_parts_and_rewarded_in_order(serve, court, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "k")
    url, seen = serve([lengths])
    assert of(url, court, 5, at_once=2, key_from="JUDGE_KEY") == [0, 1, 2, 3, 4]
    assert [len(given["answers"]) for given, _ in seen] == [2, 2, 1]
    assert seen[0][0]["answers"][1] == {"prompt": "count", "text": "a", "expected": "b", "finish": "stop"}
    assert {key for _, key in seen} == {"Bearer k"}


def test_a_server_that_was_busy_or_slow_is_asked_again(serve, court):
    url, seen = serve([busy, hangs, lengths])
    assert of(url, court, timeout_seconds=0.15) == [0, 1, 2]
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("reply", "words", "tries"),
    [
        (busy, "gave no rewards, after 3 tries: status 503: busy", 3),
        (lambda given: (404, b"no such page"), "gave no rewards, at once: status 404: no such page", 1),
        (lambda given: (200, b"<html>"), "answered '<html>'; expected", 1),
        (lambda given: (200, {"rewards": [1]}), 'expected {"rewards": \\[number, …\\]}, one for each answer', 1),
        (lambda given: (200, b'{"rewards": [NaN, 1, 2]}'), "reward server gave nan to the answer", 1),
        (lambda given: (200, {"rewards": [None, 1, 2]}), "reward server gave None to the answer", 1),
        (hangs, "gave no rewards, after 3 tries: ReadTimeout", 3),
    ],
)
def test_a_server_without_rewards_ends_with_one_sentence(serve, court, reply, words, tries):
    url, seen = serve([reply])
    with pytest.raises(RewardError, match=words):
        of(url, court, timeout_seconds=0.15)
    assert len(seen) == tries


def test_a_server_that_is_not_there(court):
    with pytest.raises(RewardError, match="after 2 tries: ConnectError"):
        of("http://127.0.0.1:9", court, retries=1)


def test_a_key_that_is_not_set(court, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(UserError, match="the environment variable JUDGE_KEY is not set"):
        of("http://127.0.0.1:9", court, key_from="JUDGE_KEY")
