"""One step of Danlu on rows of several lengths; started by `gpu_long_context.py`."""

from argparse import Namespace

import numpy as np
import torch
from peers.by_danlu import quantize, quantizer_of
from peers.memory import Gauge
from peers.workload import parser, random_model, tell

from danlu.data.packing import Pack
from danlu.engine.config import EngineConfig
from danlu.engine.engine import Engine
from danlu.engine.optimizers.adamw8bit import AdamW8bit
from danlu.engine.room import Room
from danlu.engine.step import train_step
from danlu.engine.training import Training
from danlu.models.adapters.lora import Lora
from danlu.models.policy import Policy
from danlu.objectives.sft import SFT


def run(given: Namespace) -> None:
    """Each length in turn."""
    lengths = [int(length) for length in given.lengths.split(",")]
    model = random_model(given)
    if given.quantizer:
        quantize(model, quantizer_of(given.quantizer))
    config = EngineConfig(
        steps=100, precision="bf16", gradient_checkpointing="full", offload_activations=True,
        mlp_chunk=None if "whole" in given.way else "auto", compile=False, optimizer=AdamW8bit(),
    )  # fmt: skip
    engine = Engine(config)
    policy = Policy(Lora(rank=16, alpha=32).apply(model).to(engine.device)).train()  # type: ignore[arg-type]
    training = Training(config, {"policy": policy}, engine.dtype, 100, lambda name: 1.0)
    engine.prepare(policy, 0)
    Room(engine, training, pack_tokens=max(lengths))
    draw, gauge = np.random.default_rng(1), Gauge()
    for length in lengths:
        pack = Pack.of([(draw.integers(3, 128000, length), np.ones(length, bool))])
        gauge.begin()
        update = train_step(engine, training, SFT(), [pack], lambda: False)
        tell(given, gauge.end(given.way, length, update.loss))


if __name__ == "__main__":
    ASKED = parser(__doc__)
    ASKED.add_argument("--lengths")
    torch.manual_seed(0)
    run(ASKED.parse_args())
