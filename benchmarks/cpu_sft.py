"""Danlu and TRL's SFTTrainer on a processor: the same 200 Alpaca rows, model and settings, in turn, and the ratio.

    python benchmarks/cpu_sft.py --data alpaca.jsonl.zst [--adapter lora|full] [--rounds 2] [--compile on|off]

Both train one epoch in steps of 16 rows. What is compared is *trained* tokens a second (answers and end marks; padding
and prompts count for nobody) over every step but the first. TRL runs as it comes, and in the ways that could be faster
on a processor: bf16 weights, no checkpointing, its own packing, or one row at a time so that nothing is padded.
"""

import argparse
import gc
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from danlu.data.sources import Source
from danlu.engine.metrics import read_metrics
from danlu.models.resolve import resolve
from danlu.runs.start import start

ROWS, BATCH = 200, 16
TRL_WAYS = {
    "trl default": {},
    "trl bf16, no checkpointing": {"gradient_checkpointing": False, "dtype": torch.bfloat16},
    "trl fp32, no checkpointing": {"gradient_checkpointing": False, "dtype": torch.float32},
    "trl bf16, its packing": {"gradient_checkpointing": False, "dtype": torch.bfloat16, "packing": True,
                              "packing_strategy": "wrapped", "per_device_train_batch_size": 1,
                              "gradient_accumulation_steps": 2},
    "trl bf16, a row at a time": {"gradient_checkpointing": False, "dtype": torch.bfloat16,
                                  "per_device_train_batch_size": 1, "gradient_accumulation_steps": BATCH},
}  # fmt: skip


@dataclass
class Clock(TrainerCallback):
    """When each optimiser step of a Trainer ended, and how many trained tokens its collator had handed out by then."""

    trained: list[int] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())


def trl_speed(way: dict, model: Path, rows: list[dict], adapter: str) -> float:
    """Trained tokens a second of one epoch."""
    settings = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2} | way
    dtype = settings.pop("dtype", torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model)
    chats = [{"prompt": [{"role": "user", "content": question(row)}],
              "completion": [{"role": "assistant", "content": row["output"]}]} for row in rows]  # fmt: skip
    clock = Clock()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=dtype),
        args=SFTConfig(tempfile.mkdtemp(), use_cpu=True, num_train_epochs=1, learning_rate=2e-4, report_to="none",
                       save_strategy="no", logging_strategy="no", disable_tqdm=True, **settings),
        train_dataset=Dataset.from_list(chats),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear") if adapter == "lora" else None,
        callbacks=[clock],
    )  # fmt: skip
    collate = trainer.data_collator

    def counting(examples):
        batch = collate(examples)
        clock.trained.append(int((batch["labels"][:, 1:] != -100).sum()))
        return batch

    trainer.data_collator = counting
    trainer.train()
    micro = settings["gradient_accumulation_steps"]
    return sum(clock.trained[micro:]) / (clock.ends[-1] - clock.ends[0])


def danlu_speed(model: Path, file: Path, adapter: str, compile: str) -> float:
    """Trained tokens a second of one epoch, by the run's own metrics."""
    folder = Path(tempfile.mkdtemp()) / "run"
    chosen = ["adapter={name: lora, rank: 16, alpha: 32}"] if adapter == "lora" else ["adapter=full"]
    start("sft_lora", [f"model.path={model}", f"data.sources={file}", "data.held_out=0", f"data.batch.rows={BATCH}",
                       f"engine.compile={compile}", "engine.device=cpu", "engine.optimizer.lr=2e-4",
                       "hooks=[metrics_file]", f"folder={folder}", *chosen])  # fmt: skip
    steps = [line for line in read_metrics(folder / "metrics.jsonl") if line["event"] == "step"][1:]
    return sum(step["trained_tokens"] for step in steps) / sum(step["seconds"] for step in steps)


def question(row: dict) -> str:
    return "\n".join(filter(None, [row["instruction"], row.get("input")]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/alpaca_en_9k.jsonl.zst"))
    parser.add_argument("--model", default="builtin:smollm2-135m")
    parser.add_argument("--adapter", choices=["lora", "full"], default="lora")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--compile", default="off")
    parser.add_argument("--ways", default="", help="only TRL ways whose name holds one of these words, by commas")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    source = Source(path=str(options.data), max_rows=ROWS)
    rows = [row for row in (found for _, found in source.rows()) if row["output"]][:ROWS]
    file = Path(tempfile.mkdtemp()) / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    model = resolve(options.model)
    words = [word for word in options.ways.split(",") if word]
    ways = {name: way for name, way in TRL_WAYS.items() if not words or any(word in name for word in words)}
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        found.setdefault("danlu", []).append(danlu_speed(model, file, options.adapter, options.compile))
        print(f"danlu {found['danlu'][-1]:.0f}", flush=True)
        for name, way in ways.items():
            gc.collect()
            found.setdefault(name, []).append(trl_speed(way, model, rows, options.adapter))
            print(f"{name} {found[name][-1]:.0f}", flush=True)
    report(found, options.adapter)


def report(found: dict[str, list[float]], adapter: str) -> None:
    """A table of medians and ratios."""
    ours = statistics.median(found["danlu"])
    print(f"\n{adapter}, {torch.get_num_threads()} threads, trained tokens/s (median of {len(found['danlu'])})")
    for name, speeds in found.items():
        speed = statistics.median(speeds)
        print(f"  {name:28} {speed:7.1f}   danlu is {ours / speed:.2f}x")


if __name__ == "__main__":
    main()
