"""A whole run of Danlu; started by `gpu_preferences.py`."""

import json
import logging
import tempfile
from argparse import Namespace
from pathlib import Path

from peers.preferences import answer, arguments, folder_of, texts_of
from peers.workload import device, forget_peak

from danlu.engine.metrics import read_metrics
from danlu.runs.start import start


def settings_of(given: Namespace, out: Path) -> list[str]:
    """The recipe's, as a user would give them."""
    file = out / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in texts_of(given)))
    common = [
        f"model.path={folder_of(given)}", f"data.sources={file}", f"data.batch.rows={given.rows}", "data.held_out=0",
        "data.template=default", f"data.max_length={given.longest}", f"folder={out / 'run'}", "data.shuffle=false",
        f"engine.steps={given.warm + given.steps}", f"engine.device={device()}", "engine.precision=bf16",
        f"data.pack_tokens={given.tokens}", "engine.save.every_steps=1000", "hooks=[metrics_file]",
        f"data.cache={out / 'cache'}", "engine.optimizer.lr=1e-5",
    ]  # fmt: skip
    if given.quantizer:
        common.append(f"model.quantizer={given.quantizer}")
    if given.objective == "grpo":
        length = "[{name: length, least: 1, most: 200}]"
        return [
            *common, f"objective.rewards={length}", f"objective.group={given.group}", "objective.writer.at_once=64",
            f"objective.max_tokens={given.answer_tokens}",
        ]  # fmt: skip
    if given.objective == "dpo":
        common.append(f"objective.reference={'precomputed' if 'precomputed' in given.way else 'base'}")
    return common


def run(given: Namespace) -> None:
    """Train, and tell."""
    logging.disable(logging.INFO)
    out = Path(tempfile.mkdtemp())
    settings = settings_of(given, out)
    forget_peak()
    start(given.objective, settings)
    steps = [line for line in read_metrics(out / "run" / "metrics.jsonl") if line["event"] == "step"][given.warm :]
    learned, waited = (sum(line[name] for line in steps) for name in ("seconds", "waited_seconds"))
    parts = {"s written and judged": round(waited / len(steps), 2), "s learned": round(learned / len(steps), 2)}
    loss = sum(line["loss"] for line in steps) / len(steps)
    answer(given, learned + waited, loss, **(parts if given.objective == "grpo" else {}))


if __name__ == "__main__":
    run(arguments(__doc__))
