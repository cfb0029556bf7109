"""How far a small model gets on a processor by learning from a reward: beginnings of film reviews, continued kindly.

    python benchmarks/rl_cpu.py --data reviews.jsonl.zst --objective ppo|grpo [--reward vader|FOLDER] [--minutes 8]
    [key=value ...]

The model goes on from the first eight tokens of a review; its words are worth what the VADER lexicon thinks of them
(`pip install vaderSentiment`), from -1 to 1, or the score of a run of `danlu train reward`. Every few steps one line:
the mean reward, how many deviations of the first rollouts' rewards it is above their mean, how far answers are
from what the model would have written at the beginning (nats an answer), tokens a second of writing and of updating. In
the end three answers of the first step and of the last.
"""

import argparse
import json
import logging
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from danlu.core.errors import Interrupted
from danlu.data.sources import Source
from danlu.engine.hooks.base import Hook, Listener
from danlu.engine.metrics import read_metrics
from danlu.engine.records import RunFacts, StepRecord
from danlu.models.load import tokenizer_of
from danlu.rewards.base import Answer
from danlu.runs.start import start

MODEL = "builtin:smollm2-135m"
KNOWN, SHORTEST, LONGEST = 8, 16, 28
"""tokens of a prompt, and of an answer"""
AT_FIRST, AT_END = 3, 8
"""rollouts that the result is measured from, and whose mean it is"""
SETTINGS = {
    "grpo": {"data.batch.rows": "16", "engine.optimizer.lr": "1e-3"},
    "ppo": {"data.batch.rows": "64", "engine.optimizer.lr": "1e-3"},
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "grpo": {"group": 4, "beta": 0.05, "passes": 2, "minibatches": 2},
    "ppo": {
        "beta": 0.02,
        "kl_controller": "adaptive",
        "kl_target": 8,
        "kl_horizon": 100,
        "passes": 2,
        "minibatches": 2,
    },
}
analyzer = SentimentIntensityAnalyzer()


def vader(answer: Answer) -> float:
    """What the lexicon thinks of an answer's words."""
    return analyzer.polarity_scores(answer.text)["compound"]


class Told(Hook):
    """Prints how it goes, and ends the run when its time is up."""

    minutes: float = 8.0
    """how long the run may take"""
    every_steps: int = 4
    """steps between two lines"""

    def start(self, run: RunFacts) -> Listener:
        """From now on."""
        return Teller(self.minutes, self.every_steps)


class Teller(Listener):
    """One line for every few steps."""

    def __init__(self, minutes: float, every_steps: int) -> None:
        self.minutes, self.every_steps, self.began = minutes, every_steps, time.monotonic()
        self.first: list[StepRecord] = []

    def on_step(self, record: StepRecord) -> None:
        """A line, and the end where it is due."""
        minutes = (time.monotonic() - self.began) / 60
        writes = "writing_tokens_per_second" in record.waited
        if writes and len(self.first) < AT_FIRST:
            self.first.append(record)
        if writes and record.step % self.every_steps in (0, 1):
            print(f"{minutes:5.1f} min  {line([one.metrics for one in self.first], record)}", flush=True)
        if minutes > self.minutes:
            signal.raise_signal(signal.SIGINT)


def line(first: Sequence[Mapping[str, float]], now: StepRecord) -> str:
    """One step beside the first ones."""
    mean, std = start_of(first)
    reward, writing = now.metrics["reward"], now.waited["writing_tokens_per_second"]
    raised = (reward - mean) / std
    return (
        f"step {now.step:4}  reward {reward:+.3f}  raised by {raised:+.2f} std  KL {nats(now.metrics):6.2f}  "
        f"writing {writing:.0f} tokens/s  updating {now.tokens_per_second:.0f} tokens/s"
    )


def start_of(first: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Mean and deviation of the rewards of the first rollouts, which are of one size."""
    means, squares = zip(*((one["reward"], one["reward_std"] ** 2 + one["reward"] ** 2) for one in first), strict=True)
    mean = float(np.mean(means))
    return mean, float(np.sqrt(np.mean(squares) - mean**2))


def nats(metrics: Mapping[str, float]) -> float:
    """From the beginning, an answer."""
    return metrics["kl"] if "kl_coefficient" in metrics else metrics["kl"] * metrics["answer_tokens"]


def prompts_of(file: Path) -> Path:
    """The first tokens of each text, as a file of prompts."""
    backend = tokenizer_of(MODEL).backend_tokenizer
    texts: list[Any] = [row["text"] for _, row in Source(path=str(file)).rows()]
    found = [backend.decode(one.ids[:KNOWN]) for one in backend.encode_batch(texts) if len(one.ids) > KNOWN]
    folder = Path(tempfile.mkdtemp())
    rows = [json.dumps({"prompt": text}, ensure_ascii=False) for text in found]
    (folder / "prompts.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "prompts.jsonl"


def settings_of(options: argparse.Namespace, folder: Path) -> list[str]:
    """The recipe."""
    judge = {"name": "model", "path": options.reward, "reads": "answer"}
    if options.reward == "vader":
        judge = {"name": "function", "function": "rl_cpu:vader"}
    objective = {"name": options.objective, "rewards": [judge], "min_tokens": SHORTEST, "max_tokens": LONGEST}
    hooks = ["metrics_file", {"name": "samples", "most": 3}, {"name": "rl_cpu:Told", "minutes": options.minutes}]
    words = {
        "model.path": MODEL,
        "adapter": "{name: lora, rank: 16, alpha: 32}",
        "data.sources": prompts_of(options.data),
        "data.template": "vanilla",
        "data.held_out": "0",
        "data.pack_tokens": "1024",
        "engine.device": "cpu",
        "engine.epochs": "100",
        "engine.schedule": "{name: constant}",
        "engine.save.every_steps": "100000",
        "engine.compile": "false",
        "allow_code": "true",
        "objective": json.dumps(objective | OBJECTIVES[options.objective]),
        "hooks": json.dumps(hooks),
        "folder": folder,
    }
    named = [f"{key}={value}" for key, value in (words | SETTINGS[options.objective]).items()]
    return [*named, *options.settings]


def report(folder: Path) -> None:
    """What came of it."""
    steps = [one for one in read_metrics(folder / "metrics.jsonl") if one["event"] == "step" and one["waited"]]
    mean, std = start_of([one["metrics"] for one in steps[:AT_FIRST]])
    last = [one["metrics"] for one in steps[-AT_END:]]
    reward, kl = (float(np.mean(values)) for values in ([one["reward"] for one in last], [nats(one) for one in last]))
    print(
        f"reward {mean:+.3f} (std {std:.3f}) in the first {AT_FIRST} rollouts, {reward:+.3f} in the last {len(last)}:"
    )
    print(f"raised by {(reward - mean) / std:+.2f} standard deviations, {kl:.2f} nats an answer from the beginning")
    for name in ("writing_tokens_per_second", "writing_seconds", "judging_seconds"):
        print(f"{name.replace('_', ' ')}: {np.mean([one['waited'][name] for one in steps[1:]]):.2f}")
    samples = read_metrics(folder / "samples.jsonl")
    for title, number in (("first", samples[0]["step"]), ("last", samples[-1]["step"])):
        print(f"\n{title} step ({number}):")
        for one in samples:
            if one["step"] == number:
                print(f"  {one['reward']:+.3f}  {one['prompt']!r} -> {one['answer']!r}")


def main() -> None:
    """As the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="rows with a text")
    parser.add_argument("--objective", choices=["ppo", "grpo"], default="ppo")
    parser.add_argument("--reward", default="vader", help="vader, or the folder of a reward run")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("settings", nargs="*", help="of the recipe, as key=value")
    options = parser.parse_intermixed_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    folder = Path(tempfile.mkdtemp()) / "run"
    with suppress(Interrupted):
        start(options.objective, settings_of(options, folder))
    report(folder)


if __name__ == "__main__":
    main()
