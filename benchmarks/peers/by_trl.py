"""The same by TRL's trainer with Liger's kernels; started by `gpu_sft.py`.

Words of a way: `checkpointing`; `wrapped` joins rows and cuts them anywhere, so that they see each other; `bfd` keeps
them apart in one padded-free stream; `flex` does that by torch's flexible attention. Its own advice for `bfd` is
FlashAttention 2, a package of hundreds of MB that was not at hand.
"""

import tempfile
from argparse import Namespace
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from datasets import Dataset, disable_progress_bars
from peers.ticks import Ticks, trained
from peers.workload import LONGEST, Clock, parser, random_model, rows_of, table_of, tell, tokenizer
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer


def quantize(model: Any) -> None:
    """bitsandbytes' NF4 with double quantisation in every linear layer of the blocks, as transformers loads it."""
    for name, layer in list(model.model.layers.named_modules()):
        if isinstance(layer, torch.nn.Linear):
            place = layer.weight.device
            packed = Linear4bit(
                layer.in_features, layer.out_features, bias=False, compute_dtype=torch.bfloat16,
                compress_statistics=True, quant_type="nf4", device="meta",
            )  # fmt: skip
            packed.weight = Params4bit(
                layer.weight.detach(), requires_grad=False, compress_statistics=True, quant_type="nf4",
                module=packed,
            ).to(place)  # fmt: skip
            model.model.layers.set_submodule(name, packed)
    model.is_loaded_in_4bit = True
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def config_of(given: Namespace) -> SFTConfig:
    """TRL's settings."""
    words = given.way.split()
    packing = "wrapped" if "wrapped" in words else "bfd" if {"bfd", "flex"} & {*words} else None
    if packing is None and not given.segments:
        packing = "wrapped"
    longest = LONGEST if packing or given.data else given.segments
    return SFTConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=max(1, given.tokens // longest),
        max_length=min(longest, given.tokens), bf16=True, use_liger_kernel=torch.cuda.is_available(),
        gradient_checkpointing="checkpointing" in words, max_steps=given.warm + given.steps, save_strategy="no",
        logging_steps=given.warm + given.steps, report_to=[], optim="adamw_torch_fused", learning_rate=1e-4,
        packing=packing is not None, packing_strategy=packing or "bfd", disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip


def run(given: Namespace) -> dict[str, Any]:
    """Train, and tell."""
    if given.quantizer not in (None, "nf4"):
        raise SystemExit(f"TRL has no {given.quantizer} base to learn beside")
    disable_progress_bars()
    rows, model, ticks = rows_of(given), random_model(given), Ticks(Clock(given))
    if given.quantizer:
        quantize(model)
    if "flex" in given.way.split():
        model.set_attn_implementation("flex_attention")
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=model, args=config_of(given), processing_class=tokenizer(), callbacks=[ticks],
        train_dataset=Dataset.from_list(table_of(rows, masked=bool(given.data))),
        peft_config=None if given.adapter == "full" else lora,
    )  # fmt: skip
    return trained(trainer, ticks, rows)


if __name__ == "__main__":
    GIVEN = parser(__doc__).parse_args()
    tell(GIVEN, run(GIVEN))
