"""The same by TRL's trainers; started by `gpu_preferences.py`."""

import tempfile
import time
from argparse import Namespace
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peers.preferences import NUMBERS, answer, arguments, folder_of, texts_of
from peers.workload import forget_peak, wait
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer


class Clock(TrainerCallback):
    """When steps ended, and the losses."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Nothing before counts."""
        forget_peak()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """One more."""
        wait()
        self.ends.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """A step's loss."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


def common(given: Namespace) -> dict[str, Any]:
    """Settings that all trainers have."""
    words = given.way.split()
    rows = given.rows * (given.group if given.objective == "grpo" else 1)
    at_once = next((number for word, number in NUMBERS.items() if word in words), rows)
    return {
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": at_once, "bf16": torch.cuda.is_available(),
        "gradient_accumulation_steps": rows // at_once, "gradient_checkpointing": "checkpointing" in words,
        "max_steps": given.warm + given.steps, "save_strategy": "no", "logging_steps": 1, "report_to": "none",
        "disable_tqdm": True, "optim": "adamw_torch_fused", "learning_rate": 1e-5, "dataloader_pin_memory": False,
        "use_cpu": not torch.cuda.is_available(),
        # Liger takes a classifier for a model that writes
        "use_liger_kernel": torch.cuda.is_available() and given.objective != "reward",
    }  # fmt: skip


def rewards(completions: list[str], **_: Any) -> list[float]:
    """Short ones are better, which costs nothing to find out."""
    return [-len(each) / 1000 for each in completions]


def trainer_of(given: Namespace) -> Any:
    """The trainer of an objective."""
    folder, words = folder_of(given), given.way.split()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    kind, more, task = AutoModelForCausalLM, {}, "CAUSAL_LM"
    if given.objective == "reward":
        kind, more, task = AutoModelForSequenceClassification, {"num_labels": 1}, "SEQ_CLS"
    target = "cuda" if torch.cuda.is_available() else "cpu"
    model = kind.from_pretrained(folder, dtype=torch.bfloat16, device_map=target, **more)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type=task)
    rows = texts_of(given)
    if given.objective == "grpo":
        args = GRPOConfig(
            **common(given), num_generations=given.group, max_completion_length=given.answer_tokens, beta=0.0,
            temperature=1.0, use_transformers_continuous_batching="continuous" in words, loss_type="grpo",
        )  # fmt: skip
        rows = [{"prompt": row["prompt"]} for row in rows]
        return GRPOTrainer(model, rewards, args, Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora)
    if given.objective == "dpo":
        args = DPOConfig(**common(given), max_length=given.longest, precompute_ref_log_probs="precomputed" in words)
        return DPOTrainer(
            model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora
        )
    args = RewardConfig(**common(given), max_length=given.longest)
    return RewardTrainer(
        model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora
    )


def run(given: Namespace) -> None:
    """Train, and tell."""
    disable_progress_bars()
    trainer, clock = trainer_of(given), Clock()
    trainer.add_callback(clock)
    trainer.train()
    seconds = clock.ends[given.warm + given.steps - 1] - clock.ends[given.warm - 1]
    losses = clock.losses[given.warm :]
    answer(given, seconds, sum(losses) / max(1, len(losses)))


if __name__ == "__main__":
    run(arguments(__doc__))
