"""One step of Unsloth on rows of several lengths; started by `gpu_long_context.py`.

Words of a way: `tiled` turns on its tiled MLP.
"""

from peers.by_unsloth import adapted  # isort: skip  # Unsloth patches what is imported after it
import tempfile
from argparse import Namespace
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from peers.memory import Gauge
from peers.workload import parser, tell
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer


class Reads(TrainerCallback):
    """Tells the memory of every step, whose rows come in the order of their lengths."""

    def __init__(self, given: Namespace, lengths: list[int]) -> None:
        self.given, self.left, self.gauge = given, list(lengths), Gauge()

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """A row comes."""
        self.gauge.begin()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """It has been learnt from."""
        self.found = self.gauge.end(self.given.way, self.left.pop(0), float("nan"))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Its loss is known."""
        if "loss" in (logs or {}):
            tell(self.given, self.found | {"loss": float(logs["loss"])})  # type: ignore[index]


def run(given: Namespace) -> None:
    """Each length in turn."""
    disable_progress_bars()
    lengths = [int(length) for length in given.lengths.split(",")]
    model, tokenizer = adapted(given, max(lengths), checkpointing=True, tiled="tiled" in given.way)
    draw = np.random.default_rng(1)
    rows = Dataset.from_list([{"input_ids": draw.integers(3, 128000, length).tolist()} for length in lengths])
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=1, max_length=max(lengths), bf16=True,
        max_steps=len(lengths), logging_steps=1, save_strategy="no", report_to=[], optim="adamw_8bit",
        learning_rate=1e-4, disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=config, processing_class=tokenizer, callbacks=[Reads(given, lengths)], train_dataset=rows
    )
    trainer._get_train_sampler = lambda *given: SequentialSampler(trainer.train_dataset)  # type: ignore[method-assign]
    trainer.train()


if __name__ == "__main__":
    ASKED = parser(__doc__)
    ASKED.add_argument("--lengths")
    torch.manual_seed(0)
    run(ASKED.parse_args())
