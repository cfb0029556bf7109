"""How much a quantized base costs in loss: LoRA from one and the same model, whose weights lie in bf16, fp8, int8, NF4.

    python benchmarks/gpu_sft.py --prepare text.npz --most 4000000 --data FILES     # anywhere, once
    python benchmarks/gpu_quantized_loss.py --data text.npz [--seconds 60] [--steps 100]
    python benchmarks/gpu_quantized_loss.py --data text.npz --size tiny --seconds 5 --steps 5

A model of Llama's shape is first trained from nothing on most rows for --seconds; then each base gets the same LoRA on
rows that were kept back, in the same order, and is measured on others that nobody learned from. `bf16 again` begins
from other adapter matrices: what two runs differ by anyway. Prints ten losses of each curve as soon as it is there,
then the differences to bf16. Exit code 1 if one is over its bound.
"""

import argparse
import copy
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peers.by_danlu import filled, quantize, quantizer_of
from peers.token_file import TokenFile
from peers.workload import Row, device
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from danlu.data.packing import Pack
from danlu.engine.config import EngineConfig
from danlu.engine.engine import Engine
from danlu.engine.optimizers.adamw import AdamW
from danlu.engine.schedules.cosine import Cosine
from danlu.engine.step import train_step
from danlu.engine.training import Training
from danlu.models.adapters.base import Adapter
from danlu.models.adapters.full import Full
from danlu.models.adapters.lora import Lora
from danlu.models.policy import Policy
from danlu.objectives.pretrain import Pretrain

BOUNDS = {"fp8": 0.005, "int8": 0.005, "nf4": 0.03}
"""how far the mean of the last ten losses, and the held-out loss, may be from bf16's"""
SIZES = {"100m": (768, 2048, 12, 12), "tiny": (64, 128, 2, 4)}
"""hidden, inner, blocks, heads"""
HELD_OUT = 4
"""packs to measure on"""


@dataclass
class Split:
    """Packs to learn the model from, for the adapters, and to measure on."""

    first: list[Pack]
    second: list[Pack]
    held_out: list[Pack]


def split(rows: list[Row], tokens: int, steps: int) -> Split:
    """The file's rows, whose order is by chance: some to measure on, as many as the steps need, all others."""
    packs = [[rows[n] for n in numbers] for numbers in filled(rows, tokens)]
    if len(packs) < HELD_OUT + steps + 1:
        raise SystemExit(f"{len(packs)} packs of {tokens} tokens are too few for {steps} steps; give fewer")
    end = HELD_OUT + steps
    whole = [[(ids, np.ones(len(ids), bool)) for ids, _ in pack] for pack in packs[end:]]
    return Split(*([Pack.of(pack) for pack in some] for some in (whole, packs[HELD_OUT:end], packs[:HELD_OUT])))


def model_of(size: str, vocabulary: int) -> PreTrainedModel:
    """Fresh fp32 weights."""
    hidden, inner, blocks, heads = SIZES[size]
    config = LlamaConfig(
        vocab_size=-(-vocabulary // 64) * 64, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=blocks,
        num_attention_heads=heads, num_key_value_heads=heads // 2, tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    with torch.device(device()):
        return LlamaForCausalLM(config)


class Run:
    """A model that learns by Danlu's own step."""

    def __init__(self, model: PreTrainedModel, adapter: Adapter, lr: float, steps: int, *, seed: int = 1) -> None:
        config = EngineConfig(steps=steps, precision="bf16", optimizer=AdamW(lr=lr), schedule=Cosine(warmup=0.05))
        self.engine = Engine(config)
        torch.manual_seed(seed)
        self.policy = Policy(adapter.apply(model).to(self.engine.device)).train()  # type: ignore[arg-type]
        self.training = Training(config, {"policy": self.policy}, self.engine.dtype, steps, lambda name: 1.0)
        self.engine.prepare(self.policy, 0)  # too short for the compiler
        self.objective = Pretrain()

    def step(self, pack: Pack) -> float:
        """One update; its loss."""
        update = train_step(self.engine, self.training, self.objective, [pack], lambda: False)
        self.training.progress.step += 1
        return update.loss

    @torch.no_grad()
    def measure(self, packs: list[Pack]) -> float:
        """Mean loss of packs, of trained tokens."""
        found = [self.objective.measure({"policy": self.policy}, pack.to(self.engine.device)) for pack in packs]
        return float(sum(float(one.total) for one in found) / sum(one.count for one in found))


def learned(given: argparse.Namespace, packs: list[Pack], vocabulary: int) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """A model that has read the packs for a while: an empty one, and its weights in bf16."""
    torch.manual_seed(0)
    model = model_of(given.size, vocabulary)
    shell = copy.deepcopy(model).bfloat16()
    run, losses, began = Run(model, Full(), 1e-3, 20), [], time.perf_counter()
    while (gone := time.perf_counter() - began) < given.seconds:
        if len(losses) % 10 == 5:  # how many steps there will be is known by how long they take
            run.training.num_steps = max(20, int(len(losses) * given.seconds / gone))
        losses.append(run.step(packs[len(losses) % len(packs)]))
        if len(losses) in (1, 10, 100) or len(losses) % 500 == 0:
            print(f"full: step {len(losses)}, loss {losses[-1]:.3f}, {gone:.0f} s", flush=True)
    epochs = len(losses) / len(packs)
    print(f"full: {len(losses)} steps, {epochs:.1f} times over the rows, loss {losses[-1]:.3f}\n", flush=True)
    return shell, {name: value.detach().bfloat16().clone() for name, value in run.policy.inner.state_dict().items()}


def adapted(given: argparse.Namespace, name: str, model: PreTrainedModel, data: Split) -> dict[str, float]:
    """LoRA beside one kind of base: its curve, and what the differences are made of."""
    base, _, again = name.partition(" ")
    began = time.perf_counter()
    if base != "bf16":
        quantize(model, quantizer_of(base))
    run = Run(model, Lora(rank=16, alpha=32), 2e-4, len(data.second), seed=2 if again else 1)
    before = run.measure(data.held_out)
    losses = [run.step(pack) for pack in data.second]
    after = run.measure(data.held_out)
    curve = " ".join(f"{loss:.4f}" for loss in losses[:: max(1, len(losses) // 10)])
    seconds = time.perf_counter() - began
    print(f"{name}: {curve}; held out {before:.4f} -> {after:.4f}; {seconds:.0f} s", flush=True)
    return {"before": before, "last ten": sum(losses[-10:]) / len(losses[-10:]), "held out": after}


def main() -> int:
    """One model, then LoRA beside each base."""
    given = arguments()
    file = TokenFile.load(Path(given.data))
    data = split(file.rows(), given.tokens, given.steps)
    model, weights = learned(given, data.first, int(file.ids.max()) + 1)
    found: dict[str, dict[str, float]] = {}
    for name in given.bases.split(","):
        try:
            fresh = copy.deepcopy(model)
            fresh.load_state_dict(weights)
            found[name] = adapted(given, name, fresh, data)
        except Exception as error:  # the others are still worth their time
            print(f"{name}: {type(error).__name__}: {error!s:.300}", flush=True)
    return report(found)


def report(found: dict[str, dict[str, float]]) -> int:
    """The differences to bf16, and whether all are inside their bounds."""
    if "bf16" not in found:
        return 1
    print("\n| base | before | last ten | held out | bound |\n|---|---:|---:|---:|---:|")
    bad = 0
    for name, numbers in found.items():
        parts = {key: value / found["bf16"][key] - 1 for key, value in numbers.items()}
        bound = BOUNDS.get(name, math.inf)
        bad += max(abs(parts["last ten"]), abs(parts["held out"])) > bound
        shown = " | ".join(f"{numbers[key]:.4f} ({100 * part:+.2f} %)" for key, part in parts.items())
        print(f"| {name} | {shown} | {f'{100 * bound:.1f} %' if name in BOUNDS else ''} |", flush=True)
    return 1 if bad or len(found) < 2 else 0


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a file of tokens")
    parser.add_argument("--size", choices=SIZES, default="100m")
    parser.add_argument("--seconds", type=float, default=60, help="of full training")
    parser.add_argument("--steps", type=int, default=100, help="of LoRA beside each base")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of a step")
    parser.add_argument("--bases", default="bf16,fp8,int8,nf4,bf16 again")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
