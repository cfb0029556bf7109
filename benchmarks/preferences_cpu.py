"""How well a small model learns preferences on a processor, and how fast beside TRL's trainers.

    python benchmarks/preferences_cpu.py learn --data pairs.jsonl.zst --objective reward [--steps 700] [key=value ...]
    python benchmarks/preferences_cpu.py speed --data pairs.jsonl.zst --objective dpo [--rows 100]

`learn` trains one run and prints the held-out accuracy before and after it, the steps and the seconds. Rows of {text,
label} become pairs: a review of a film that was liked, and one of a film that was not.
`speed` gives pairs a second of Danlu and of TRL's DPOTrainer or RewardTrainer: the same rows, LoRA, 8 pairs a step,
every step but the first. TRL runs in fp32 and in bf16, without checkpointing, which is what is fastest for it here.
"""

import argparse
import json
import logging
import os
import tempfile
import time
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from danlu.data.sources import Source
from danlu.engine.metrics import read_metrics
from danlu.models.resolve import resolve
from danlu.runs.start import start

BATCH, HELD_OUT, LONGEST = 8, 300, 512
ASKED = "Write a review of a film that you liked."


def pairs_of(file: Path, count: int | None = None) -> list[dict[str, str]]:
    """Rows as {prompt, chosen, rejected}."""
    rows: list[Any] = [row for _, row in Source(path=str(file)).rows()]
    if "label" in rows[0]:
        good, bad = ([row["text"] for row in rows if row["label"] == label] for label in (1, 0))
        rows = [{"prompt": ASKED, "chosen": one, "rejected": other} for one, other in zip(good, bad, strict=False)]
    keys = {"prompt": "prompt", "chosen": "selected" if "selected" in rows[0] else "chosen", "rejected": "rejected"}
    return [{name: row[key] for name, key in keys.items()} for row in islice(rows, count)]


def written(rows: list[dict[str, str]]) -> Path:
    """Rows as a file."""
    file = Path(tempfile.mkdtemp()) / "pairs.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def danlu(file: Path, options: argparse.Namespace, *more: str) -> list[dict[str, Any]]:
    """The lines of one run's metrics."""
    folder = Path(tempfile.mkdtemp()) / "run"
    settings = [
        f"model.path={options.model}", f"data.sources={file}", f"data.max_length={LONGEST}", f"data.batch.rows={BATCH}",
        "data.template=default", "engine.device=cpu", f"folder={folder}", *more, *options.settings,
    ]  # fmt: skip
    start(options.objective, settings)
    return read_metrics(folder / "metrics.jsonl")


def learn(options: argparse.Namespace) -> None:
    """Held-out accuracy before and after."""
    began = time.perf_counter()
    rate = {"reward": "5e-4", "dpo": "2e-4"}[options.objective]
    more = [f"data.held_out={HELD_OUT}", f"engine.optimizer.lr={rate}", f"engine.steps={options.steps}"]
    lines = danlu(written(pairs_of(options.data)), options, *more)
    before, *_, after = [line for line in lines if line["event"] == "eval"]
    for name, line in (("before", before), ("after", after)):
        print(f"{name:7} held-out loss {line['loss']:.4f}  accuracy {line['metrics']['accuracy']:.4f}")
    print(f"{options.objective}: {after['step']} steps of {BATCH} pairs, {time.perf_counter() - began:.0f} s in all")


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())


def trl_speed(model: Path, rows: list[dict[str, str]], objective: str, dtype: torch.dtype) -> float:
    """Pairs a second."""
    config, trainer, kind = {
        "dpo": (DPOConfig, DPOTrainer, AutoModelForCausalLM),
        "reward": (RewardConfig, RewardTrainer, AutoModelForSequenceClassification),
    }[objective]
    task, more = ("CAUSAL_LM", {}) if objective == "dpo" else ("SEQ_CLS", {"num_labels": 1})
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [row | {"prompt": f"Human: {row['prompt']}\nAssistant: "} for row in rows]
    clock = Clock()
    args = config(
        tempfile.mkdtemp(), use_cpu=True, bf16=False, per_device_train_batch_size=BATCH, num_train_epochs=1,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, gradient_checkpointing=False,
        max_length=LONGEST,
    )  # fmt: skip
    trainer(
        kind.from_pretrained(model, dtype=dtype, **more), args=args, train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer, callbacks=[clock],
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type=task),
    ).train()  # fmt: skip
    return BATCH * (len(clock.ends) - 1) / (clock.ends[-1] - clock.ends[0])


def speed(options: argparse.Namespace) -> None:
    """Pairs a second of both, and the ratio."""
    rows = pairs_of(options.data, options.rows // BATCH * BATCH)
    lines = danlu(written(rows), options, "data.held_out=0", "engine.compile=false", "hooks=[metrics_file]")
    steps = [line for line in lines if line["event"] == "step"][1:]
    ours = BATCH * len(steps) / sum(line["seconds"] for line in steps)
    print(f"danlu {ours:.2f} pairs/s", flush=True)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        theirs = trl_speed(resolve(options.model), rows, options.objective, dtype)
        print(f"trl {name} {theirs:.2f} pairs/s; danlu is {ours / theirs:.2f}x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["learn", "speed"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--objective", choices=["reward", "dpo"], default="dpo")
    parser.add_argument("--model", default="builtin:smollm2-135m")
    parser.add_argument("--steps", type=int, default=330)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("settings", nargs="*", help="of the recipe, as key=value")
    options = parser.parse_intermixed_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    {"learn": learn, "speed": speed}[options.what](options)


if __name__ == "__main__":
    main()
