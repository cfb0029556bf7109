"""The same by Unsloth's model and its patched trainer; started by `gpu_sft.py`.

Words of a way: `checkpointing` is its own ("unsloth": inputs of blocks wait in the host's memory). It wants the model
on disk, and must be imported before all others.
"""

import os
import tempfile
from argparse import Namespace
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", UNSLOTH_DISABLE_STATISTICS="1")
os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", tempfile.mkdtemp())

import unsloth  # isort: skip  # noqa: F401  # it patches what is imported after it
import torch
from datasets import Dataset, disable_progress_bars
from peers.ticks import Ticks, trained
from peers.workload import LONGEST, Clock, model_folder, parser, rows_of, table_of, tell
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted(given: Namespace, longest: int, *, checkpointing: bool, tiled: bool = False) -> tuple[Any, Any]:
    """Unsloth's model with LoRA, and its tokenizer."""
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(model_folder(given)), max_seq_length=longest, dtype=torch.bfloat16, load_in_4bit=given.quantizer == "nf4",
        **({"unsloth_tiled_mlp": True} if tiled else {}),
    )  # fmt: skip
    model = FastLanguageModel.get_peft_model(
        model, r=16, lora_alpha=32, lora_dropout=0, bias="none", target_modules=LINEAR,
        use_gradient_checkpointing="unsloth" if checkpointing else False,
    )  # fmt: skip
    return model, tokenizer


def run(given: Namespace) -> dict[str, Any]:
    """Train, and tell."""
    if given.quantizer not in (None, "nf4") or given.adapter == "full":
        raise SystemExit("Unsloth is run with LoRA beside a bf16 or an NF4 base")
    disable_progress_bars()
    packed = bool(given.data) or not given.segments
    longest = LONGEST if packed else given.segments
    rows, ticks = rows_of(given), Ticks(Clock(given))
    model, tokenizer = adapted(given, longest, checkpointing="checkpointing" in given.way)
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=max(1, given.tokens // longest), max_length=longest,
        bf16=True, max_steps=given.warm + given.steps, logging_steps=given.warm + given.steps, save_strategy="no",
        report_to=[], optim="adamw_torch_fused", learning_rate=1e-4, packing=packed, disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=config, processing_class=tokenizer, callbacks=[ticks],
        train_dataset=Dataset.from_list(table_of(rows, masked=bool(given.data))),
    )  # fmt: skip
    return trained(trainer, ticks, rows)


if __name__ == "__main__":
    GIVEN = parser(__doc__).parse_args()
    tell(GIVEN, run(GIVEN))
