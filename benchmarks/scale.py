"""What full fine-tuning of 7B and 70B takes on many GPUs, by the planner and four formulas: no GPU is needed.

    python benchmarks/scale.py                     # the tables of docs/scale.md
    python benchmarks/scale.py --gpu h200 --gpus 16,128 --network 100e9 --parallel zero1

n: GPUs, P: weights, B: bytes/s between a GPU and the others, t: tokens of a GPU's step, s: its tokens/s alone.

    memory      = `danlu plan` with the same engine.parallel
    step        = max(t / s, X (n - 1) / n / B)            where n GPUs exchange X bytes, of p packs a step:
                  fsdp 8 P p, zero2 2 P + 4 P p, zero1 6 P weights are gathered in 2 bytes, gradients summed in 4
    checkpoint  = 12 P / (hosts * disk)                    fp32 weights and two means, each process its rows
    weights     = 2 P / disk                               what other tools load, by the first process
    reading     = 5 bytes a token                          an id and whether it is trained
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from danlu.engine.planner.speed import tokens_per_second
from danlu.runs.plan import device_of, planner_of
from danlu.runs.recipe import load_recipe

SHAPES = {
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "3B": {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "70B": {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
}
HOST = 8
"""GPUs of a host"""
ATTAINED = 0.8
"""of what a link promises"""


@dataclass
class Row:
    """One model on so many GPUs."""

    model: str
    gpus: int
    gib: float
    fits: bool
    choice: str
    busy: float
    exchange: float
    speed: float
    checkpoint: float
    weights: float
    reading: float

    def line(self) -> str:
        """A line of a Markdown table."""
        bound = "compute" if self.busy > self.exchange else "network"
        fits = f"{self.gib:.1f}" if self.fits else f"{self.gib:.1f}, too much"
        return (
            f"| {self.model} | {self.gpus} | {fits} | {self.choice} "
            f"| {self.busy:.2f} s, {self.exchange:.2f} s: {bound} "
            f"| {self.speed:,.0f} | {self.checkpoint:.0f} s | {self.weights:.0f} s | {self.reading / 1e6:.2f} MB/s |"
        )


def row(name: str, gpus: int, options: argparse.Namespace) -> Row:
    """Plan one."""
    with tempfile.TemporaryDirectory() as folder:
        config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, **SHAPES[name]}
        Path(folder, "config.json").write_text(json.dumps(config))
        words = [
            f"model.path={folder}", "data.sources=[]", f"data.max_length={options.length}", "data.pack_tokens=auto",
            f"data.batch={{tokens: {options.tokens * gpus}}}", f"engine.parallel={options.parallel}",
            "engine.precision=bf16", "engine.gradient_checkpointing=auto", "engine.steps=1000",
        ]  # fmt: skip
        run = load_recipe("sft_full", words)
        planner, dtype = planner_of(run, device_of(options.gpu), gpus)
        plan = planner.choose("auto", "auto")
    device = device_of(options.gpu).gpu
    assert device is not None, "a GPU of the planner's table"
    packs = max(1, options.tokens // plan.choice.pack_tokens)
    weights = sum(each.numel() for each in planner.policy.parameters())
    alone = tokens_per_second(planner.policy, plan, device, dtype, step_tokens=options.tokens)
    link = options.nvlink if gpus <= HOST else options.network
    exchanged = {"fsdp": 8 * packs, "zero2": 2 + 4 * packs, "zero1": 6}[options.parallel] * weights
    busy, exchange = options.tokens / alone, exchanged * (gpus - 1) / gpus / (link * ATTAINED)
    speed = gpus * options.tokens / max(busy, exchange)
    hosts = -(-gpus // HOST)
    return Row(
        name, gpus, plan.needed / 2**30, plan.fits,
        f"{plan.choice.pack_tokens:,}, {plan.choice.recomputed} of {plan.num_blocks}", busy, exchange, speed,
        12 * weights / (hosts * options.disk), 2 * weights / options.disk, 5 * speed,
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="7B,70B")
    parser.add_argument("--gpus", default="8,64,512")
    parser.add_argument("--gpu", default="h100")
    parser.add_argument("--parallel", default="fsdp", choices=["fsdp", "zero2", "zero1"])
    parser.add_argument("--length", type=int, default=4096, help="the longest row")
    parser.add_argument("--tokens", type=int, default=16384, help="of a GPU's step")
    parser.add_argument("--nvlink", type=float, default=450e9, help="bytes/s of a GPU to others of its host")
    parser.add_argument("--network", type=float, default=50e9, help="bytes/s of a GPU to other hosts")
    parser.add_argument("--disk", type=float, default=2e9, help="bytes/s that a host writes")
    options = parser.parse_args()
    print("| model | GPUs | GiB of each | packs, blocks recomputed | a step's products, its exchange | tokens/s | "
          "checkpoint | weights | reading |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.models.split(","):
        for gpus in options.gpus.split(","):
            print(row(name, int(gpus), options).line(), flush=True)


if __name__ == "__main__":
    main()
