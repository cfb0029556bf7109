"""A server that writes: it has the policy's weights, what it says is read as it is, and a failure is one sentence."""

import logging
import math
import time
from dataclasses import replace

import pytest
import torch

from danlu.core.errors import RewardError, UserError
from danlu.core.ranks import Ranks
from danlu.generate.base import GenerationConfig
from danlu.generate.writers import writers
from danlu.generate.writers.base import Desk, Draft, Pen
from danlu.models.adapters import adapters
from tests.generate.writers.small_vllm import SmallVLLM, folders_in
from tests.objectives.conftest import stir

PROMPTS = [[5, 6, 7, 8], [9, 10], [11]]
DRAWN = GenerationConfig(max_tokens=5, temperature=1.0)


@pytest.fixture
def server():
    with SmallVLLM() as one:
        yield one


def pen_of(server: SmallVLLM, desk: Desk, **settings) -> Pen:
    given = {"url": server.url, "retries": 2, "wait_seconds": 0.0, "timeout_seconds": 30.0} | settings
    return writers["server"].model_validate(given).open(desk)


def away(desk: Desk, prompts: list[list[int]], groups: list[list[Draft]], temperature: float = 1.0) -> float:
    """How far what a server says of its tokens is from what the policy thinks of them."""
    found = [0.0]
    for prompt, drafts in zip(prompts, groups, strict=True):
        for draft in drafts:
            ids = torch.tensor([prompt + draft.ids])
            with desk.policy.writing(), desk.policy.own_attention() as model, torch.no_grad():
                logps = (model(input_ids=ids).logits[0] / temperature).log_softmax(-1)
            logps = logps[len(prompt) - 1 : -1].gather(-1, ids[0, len(prompt) :, None])[:, 0]
            found.append(float((logps - torch.tensor(draft.logps)).abs().max()))
    return max(found)


@pytest.mark.parametrize(("adapter", "temperature"), [("full", 1.0), ("lora", 0.7), ("freeze", 1.0)])
def test_it_writes_with_the_weights_of_now(server, desk, adapter, temperature):
    desk = desk(adapter)
    pen, config = pen_of(server, desk), DRAWN.model_copy(update={"temperature": temperature})
    for _ in range(2):
        stir(desk.policy.model)
        groups = pen(PROMPTS, 3, config)
        pen.learnt()
        assert [len(drafts) for drafts in groups] == [3, 3, 3]
        assert away(desk, PROMPTS, groups, temperature) < 1e-4
        stir(desk.policy.model)
        assert away(desk, PROMPTS, groups, temperature) > 1e-3
    for draft in (one for drafts in groups for one in drafts):
        assert draft.finish == ("stop" if draft.ids[-1] in desk.stops else "length")


def test_adapters_are_loaded_and_the_last_one_goes(server, desk):
    desk = desk("lora")
    pen = pen_of(server, desk)
    for _ in range(3):
        pen(PROMPTS, 2, DRAWN)
        pen.learnt()
    load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
    assert server.paths() == [load, load, unload, load, unload]
    assert len(server.models) == 2
    assert folders_in(desk.folder) == ["000003"]
    pen.close()
    assert list(server.models) == ["tiny"]
    assert not desk.folder.exists()


def test_whole_weights_are_reloaded_and_nothing_is_remembered_of_the_last(server, desk, tmp_path):
    desk = desk("full")
    pen = pen_of(server, desk, folder=tmp_path / "seen by both")
    for _ in range(2):
        pen(PROMPTS, 2, DRAWN)
        pen.learnt()
    assert server.paths() == ["/collective_rpc", "/reset_prefix_cache"] * 2
    assert folders_in(tmp_path / "seen by both") == ["000002"]
    pen.close()
    assert folders_in(tmp_path / "seen by both") == []


def test_weights_are_given_every_so_many_steps(server, desk):
    desk = desk("full")
    pen = pen_of(server, desk, sync_every=2)
    behind = []
    for _ in range(5):
        pen(PROMPTS, 2, DRAWN)
        behind.append(pen.behind)
        pen(PROMPTS, 1, DRAWN)  # as held-out prompts
        pen.learnt()
    assert behind == [0, 1, 0, 1, 0]
    assert server.paths().count("/collective_rpc") == 3


def test_a_server_of_another_kind_is_told_where_weights_lie(server, desk):
    told = []
    server.fault = lambda path, tree: told.append(tree) or (200, {}) if path == "/mine" else None
    desk = desk("lora")
    pen_of(server, desk, sync_url=f"{server.url}/mine")(PROMPTS, 2, DRAWN)
    [one] = told
    assert one["kind"] == "adapter"
    assert (desk.folder / one["folder"] / "adapter_model.safetensors").is_file()
    assert server.paths() == ["/mine"]


def test_what_is_asked_for(server, desk, monkeypatch):
    monkeypatch.setenv("WRITER_KEY", "k")
    desk = desk()
    pen = pen_of(server, desk, key_from="WRITER_KEY")
    torch.manual_seed(7)
    first = pen(PROMPTS, 2, DRAWN)
    torch.manual_seed(7)
    assert pen(PROMPTS, 2, DRAWN) == first
    asked = [tree for path, tree, _ in server.seen if path == "/v1/completions"]
    asked = sorted((one for one in asked[:3]), key=lambda one: PROMPTS.index(one["prompt"]))
    assert [one["prompt"] for one in asked] == PROMPTS
    assert len({one["seed"] for one in asked}) == 3
    rest = {"model": "tiny", "n": 2, "max_tokens": 5, "temperature": 1.0, "top_p": 1.0, "top_k": -1}
    assert rest.items() <= asked[0].items()
    assert asked[0]["stop_token_ids"] == [3, 40, 41]
    assert asked[0]["return_token_ids"] is True
    assert {key for _, _, key in server.seen} == {"Bearer k"}


def choices(*made: dict):
    """A server that answers so."""
    return lambda path, tree: (200, {"choices": list(made)}) if path == "/v1/completions" else None


@pytest.mark.parametrize(
    ("choice", "draft"),
    [
        # the end mark is part of the ids, or was left out, or is told apart
        ({"token_ids": [9, 3], "finish_reason": "stop"}, Draft([9, 3], "stop")),
        ({"token_ids": [9], "finish_reason": "stop"}, Draft([9, 3], "stop")),
        ({"token_ids": [9], "finish_reason": "stop", "stop_reason": 41}, Draft([9, 41], "stop")),
        ({"token_ids": [], "finish_reason": "stop"}, Draft([3], "stop")),
        ({"token_ids": [9, 8], "finish_reason": "length"}, Draft([9, 8], "length")),
        ({"token_ids": [9, 8, 7, 6, 5], "finish_reason": "stop"}, Draft([9, 8, 7, 6, 5], "length")),
        (
            {"token_ids": [9, 8], "finish_reason": "length", "logprobs": {"token_logprobs": [-1, None]}},
            Draft([9, 8], "length", [-1.0, math.nan]),
        ),
        (
            {"token_ids": [9], "finish_reason": "stop", "logprobs": {"token_logprobs": [-1.5]}},
            Draft([9, 3], "stop", [-1.5, math.nan]),
        ),
        ({"token_ids": [9], "finish_reason": "length", "logprobs": {"token_logprobs": []}}, Draft([9], "length")),
    ],
)
def test_what_a_server_says_is_read(server, desk, choice, draft):
    desk = desk()
    server.fault = choices(choice)
    stops = Desk(desk.policy, desk.adapter, desk.tokenizer, {3, 41}, desk.folder)
    [[found]] = pen_of(server, stops)([[5]], 1, DRAWN)
    assert (found.ids, found.finish) == (draft.ids, draft.finish)
    assert repr(found.logps) == repr(draft.logps)


def test_a_server_without_ids_is_read_by_its_words(server, desk, caplog):
    desk = desk()
    server.fault = choices({"text": "one two", "finish_reason": "stop", "logprobs": {"token_logprobs": [-1, -1]}})
    with caplog.at_level(logging.WARNING):
        [[found], _] = pen_of(server, desk)([[5], [6]], 1, DRAWN.model_copy(update={"max_tokens": 50}))
    words = desk.tokenizer("one two", add_special_tokens=False)["input_ids"]
    assert (found.ids[:-1], found.finish, found.logps) == (words, "stop", None)
    assert found.ids[-1] in desk.stops
    assert caplog.text.count("its text is encoded again") == 1


def busy(times: int):
    """503 so often."""
    left = [times]

    def fault(path: str, tree: dict):
        left[0] -= path == "/v1/completions"
        return (503, b"busy") if path == "/v1/completions" and left[0] >= 0 else None

    return fault


def test_a_server_that_was_busy_or_slow_is_asked_again(server, desk):
    server.fault = busy(2)
    assert len(pen_of(server, desk())([[5]], 2, DRAWN)[0]) == 2

    asked = []

    def slow(path: str, tree: dict) -> tuple[int, object]:
        if path == "/v1/completions":
            asked.append(path)
            time.sleep(0.5 if len(asked) == 1 else 0)
        return 200, {"choices": [{"token_ids": [9], "finish_reason": "length"}]}

    server.fault = slow
    assert pen_of(server, desk(), timeout_seconds=0.3, model="tiny")([[5]], 1, DRAWN) == [[Draft([9], "length")]]
    assert len(asked) > 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (busy(99), "wrote nothing, after 3 tries: status 503: busy"),
        (lambda path, tree: (400, b"max_tokens is too large") if "comp" in path else None, "at once: status 400: max"),
        (lambda path, tree: (200, b"<html>") if "comp" in path else None, "answered '<html>'; expected 1 choices"),
        (choices(), "expected 1 choices"),
        (choices({"token_ids": [9], "finish_reason": "abort"}), "expected text or token_ids, and its end"),
        (choices({"finish_reason": "stop"}), "expected text or token_ids, and its end"),
        (choices({"token_ids": [10**9], "finish_reason": "length"}), r"wrote \[1000000000\]; the policy knows ids"),
        (choices({"token_ids": [], "finish_reason": "length"}), r"wrote \[\]; the policy knows"),
        (lambda path, tree: (404, b"no") if path == "/collective_rpc" else None, "VLLM_SERVER_DEV_MODE=1"),
        (lambda path, tree: (200, {"data": []}) if path == "/v1/models" else None, "name one: writer.model"),
    ],
)
def test_a_server_that_writes_nothing_ends_with_one_sentence(server, desk, fault, words):
    server.fault = fault
    with pytest.raises(RewardError, match=words):
        pen_of(server, desk())([[5]], 1, DRAWN)


def test_a_server_that_takes_no_adapters_says_how_it_would(server, desk):
    server.fault = lambda path, tree: (404, b"") if "lora" in path else None
    with pytest.raises(RewardError, match=r"did not take .*--enable-lora.*VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        pen_of(server, desk("lora"))(PROMPTS, 1, DRAWN)


def test_a_server_that_is_not_there_or_a_key_that_is_not_set(desk, monkeypatch):
    monkeypatch.delenv("WRITER_KEY", raising=False)
    nowhere = {"url": "http://127.0.0.1:9", "retries": 1, "wait_seconds": 0.0}
    with pytest.raises(RewardError, match="lists no models, after 2 tries: ConnectError"):
        writers["server"].model_validate(nowhere).open(desk())
    with pytest.raises(UserError, match="the environment variable WRITER_KEY is not set"):
        writers["server"].model_validate(nowhere | {"key_from": "WRITER_KEY"}).open(desk())


def test_several_processes_are_refused(server, desk):
    with pytest.raises(UserError, match="told of new weights by one process only; train on one"):
        pen_of(server, replace(desk(), ranks=Ranks(0, 2)))


@pytest.mark.parametrize("more", ["dora", "embeddings"])
def test_an_adapter_that_vllm_does_not_load_is_refused(more):
    lora, server = adapters["lora"](**{more: True}), writers["server"]
    assert f"vLLM loads no adapter with {more}" in (server(url="http://a").refusal(lora) or "")
    assert server(url="http://a", sync_url="http://a/b").refusal(lora) is None
    assert server(url="http://a").refusal(adapters["lora"]()) is None
    assert server(url="http://a").refusal(adapters["full"]()) is None
