"""The same by LLaMA-Factory's own trainer; started by `gpu_sft.py`.

LLaMA-Factory 0.9.5 wants transformers up to 5.6 and TRL up to 0.24. With its check of versions turned off it runs with
transformers 5.17; TRL 0.24 it does need (`AutoModelForCausalLMWithValueHead`), so that one lies in a folder of its own.
Words of a way: `checkpointing`. Real rows are joined and cut anywhere, as its packing does. Model and tokens lie on
disk.
"""

import os
import tempfile
from argparse import Namespace
from contextlib import suppress
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", DISABLE_VERSION_CHECK="1")

import torch
from datasets import Dataset, DatasetDict, disable_progress_bars
from llamafactory.hparams import get_train_args
from llamafactory.train.sft import workflow
from peers.ticks import Ticks
from peers.workload import LONGEST, Clock, mean_length, model_folder, parser, rows_of, table_of, tell

NF4 = {"quantization_bit": 4, "quantization_method": "bnb", "double_quantization": True}


class Done(Exception):
    """Its last step is made; what it would write to disk is nobody's."""


class Ending(Ticks):
    """Ends with the last step."""

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is saved."""
        raise Done


def settings(given: Namespace, tokens: str) -> dict[str, Any]:
    """What its YAML would say."""
    longest = min(LONGEST, given.tokens) if given.data or not given.segments else given.segments
    steps = given.warm + given.steps
    return {
        "stage": "sft", "do_train": True, "model_name_or_path": str(model_folder(given)), "tokenized_path": tokens,
        "dataset": "tokens", "template": "empty", "cutoff_len": longest, "finetuning_type": given.adapter,
        "lora_rank": 16, "lora_alpha": 32, "lora_target": "all", "lora_dropout": 0.0,
        "enable_liger_kernel": torch.cuda.is_available(),
        "flash_attn": "sdpa", "disable_gradient_checkpointing": "checkpointing" not in given.way,
        "per_device_train_batch_size": max(1, given.tokens // longest), "gradient_accumulation_steps": 1,
        "bf16": torch.cuda.is_available(), "max_steps": steps, "logging_steps": steps, "save_strategy": "no",
        "report_to": "none", "optim": "adamw_torch_fused", "learning_rate": 1e-4, "output_dir": tempfile.mkdtemp(),
        "disable_tqdm": True, "use_cpu": not torch.cuda.is_available(),
        **(NF4 if given.quantizer else {}),
    }  # fmt: skip


def counted(clock: Clock) -> None:
    """Its workflow makes trainers that are counted."""

    class Counted(workflow.CustomSeq2SeqTrainer):
        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
            clock.saw(inputs)
            return super().training_step(model, inputs, *rest)

    workflow.CustomSeq2SeqTrainer = Counted


def packed(rows: list[dict[str, list[int]]], longest: int) -> list[dict[str, list[int]]]:
    """Rows joined to a length, as its packing does: they see each other, and the last of a pack is cut."""
    joined: dict[str, list[int]] = {"input_ids": [], "labels": []}
    for row in rows:
        for name, values in joined.items():
            values += row[name]
    whole = len(joined["input_ids"]) // longest
    return [{name: values[n * longest : (n + 1) * longest] for name, values in joined.items()} for n in range(whole)]


def run(given: Namespace) -> dict[str, Any]:
    """Train, and tell."""
    if given.quantizer not in (None, "nf4"):
        raise SystemExit(f"LLaMA-Factory has no {given.quantizer} base to learn beside here")
    disable_progress_bars()
    rows, clock = rows_of(given), Clock(given)
    table = table_of(rows, masked=True)
    table = packed(table, min(LONGEST, given.tokens)) if given.data or not given.segments else table
    for row in table:
        row["attention_mask"] = [1] * len(row["input_ids"])
    tokens = tempfile.mkdtemp()
    DatasetDict({"train": Dataset.from_list(table)}).save_to_disk(tokens)
    counted(clock)
    ticks = Ending(clock)
    with suppress(Done):
        workflow.run_sft(*get_train_args(settings(given, tokens)), callbacks=[ticks])
    return clock.answer(ticks.loss, mean_length(rows))


if __name__ == "__main__":
    GIVEN = parser(__doc__).parse_args()
    tell(GIVEN, run(GIVEN))
