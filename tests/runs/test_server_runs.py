"""Runs whose answers a server writes: it has the policy's weights, and where it dies the run goes on later."""

import pytest

from danlu.core.errors import RewardError, UserError
from danlu.engine.metrics import read_metrics
from tests.generate.writers.small_vllm import SmallVLLM
from tests.runs.small_run import result
from tests.runs.test_rollout_runs import dies, run, samples_of

__all__ = ["run"]


@pytest.fixture
def server():
    with SmallVLLM() as one:
        yield one


def writer(server: SmallVLLM, **settings) -> dict:
    rewards = [{"name": "function", "function": "judges_of_mine:many"}]
    writer = {"name": "server", "url": server.url, "retries": 1, "wait_seconds": 0.0} | settings
    return {"rewards": rewards, "writer": writer}


LEARNS = ("allow_code=true", "engine.optimizer.lr=3e-2")
"""enough that weights of a step before are others"""


def steps_of(folder) -> list[dict]:
    return [line["metrics"] for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "step"]


@pytest.mark.parametrize(
    ("name", "adapter", "objective"),
    [
        ("grpo", "{name: lora, rank: 4, dropout: 0.1}", {}),
        ("grpo", "{name: full}", {"passes": 2}),
        ("reinforce_plus_plus", "{name: lora, rank: 4}", {"beta": 0.1}),
        ("ppo", "{name: lora, rank: 4}", {"passes": 2}),
    ],
)
def test_a_server_writes_with_the_policys_weights(run, server, name, adapter, objective):
    folder = run(
        "run",
        *LEARNS,
        f"adapter={adapter}",
        "engine.steps=4",
        "data.held_out=4",
        name=name,
        **writer(server),
        **objective,
    )
    steps = steps_of(folder)
    assert len(steps) == 4
    for metrics in steps:
        assert metrics["staleness"] < 1e-5
        assert metrics["steps_behind"] == metrics["capped"] == 0
    assert len(samples_of(folder)) == 16 * 4 // objective.get("passes", 1)
    assert not (folder / "shared").exists()
    assert list(server.models) == ["tiny"]


def test_a_server_that_lags_is_told_of_and_corrected(run, server):
    folder = run("run", *LEARNS, "engine.steps=3", correction={"cap": 1.0}, **writer(server, sync_every=2))
    steps = steps_of(folder)
    assert [metrics["steps_behind"] for metrics in steps] == [0, 1, 0]
    assert steps[0]["staleness"] < 1e-5 > steps[2]["staleness"]
    assert steps[1]["staleness"] > 1e-2
    assert steps[1]["capped"] > 0


def test_without_correction_nothing_is_compared(run, server):
    [metrics] = steps_of(run("run", *LEARNS, "engine.steps=1", correction=None, **writer(server)))
    assert "staleness" not in metrics
    assert metrics["steps_behind"] == 0


def test_a_server_that_dies_leaves_a_run_that_goes_on(run, server):
    written = []

    def dies(path: str, tree: dict):
        written.append(path == "/v1/completions")
        return (500, b"out of memory") if sum(written) > 8 else None  # four prompts a step

    server.fault = dies
    words = (
        "wrote nothing, after 2 tries: status 500: out of memory. Everything learnt before it is saved.*danlu resume"
    )
    with pytest.raises(RewardError, match=words):
        run("run", *LEARNS, "engine.epochs=2", **writer(server))
    server.fault = lambda path, tree: None
    folder = run("run", *LEARNS, "engine.epochs=2", resume=True, **writer(server))
    assert len(steps_of(folder)) == 6
    assert all(metrics["staleness"] < 1e-5 for metrics in steps_of(folder))


def test_a_killed_run_goes_on_with_the_answers_it_has(run, server, monkeypatch):
    """This server writes the same for the same seeds and weights, so the whole run is the same."""
    objective = {"passes": 2, **writer(server)}
    whole = result(run("whole", *LEARNS, "engine.epochs=1", "engine.save.every_steps=1", **objective))
    patch = dies(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        run("killed", *LEARNS, "engine.epochs=1", "engine.save.every_steps=1", **objective)
    patch.undo()
    assert (
        result(run("killed", *LEARNS, "engine.epochs=1", "engine.save.every_steps=1", resume=True, **objective))
        == whole
    )


def test_a_key_is_nowhere_in_a_run(run, server, monkeypatch):
    monkeypatch.setenv("WRITER_KEY", "very-secret")
    folder = run("run", *LEARNS, "engine.steps=1", **writer(server, key_from="WRITER_KEY"))
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert not any(b"very-secret" in text for text in texts)


def test_what_the_server_cannot_be_given_is_refused_before_anything_loads(run, server):
    with pytest.raises(UserError, match="objective grpo with adapter lora: vLLM loads no adapter with dora"):
        run("run", *LEARNS, "adapter={name: lora, dora: true}", **writer(server))
    assert server.seen == []
