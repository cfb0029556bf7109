"""Fine-tuning on one GPU: danlu and TRL, the same random model and the same tokens, in turn.

    python benchmarks/gpu_sft.py [--size 8b] [--adapter lora] [--segments 2048] [--ways danlu,trl]

Prints tokens/s, peak memory, the share of an H100's 989 TFLOP/s that was useful (no recomputation counted) and the last
loss of each, then the ratios. TRL needs trl, datasets, dill, multiprocess and liger-kernel; each of its ways runs with
gradient checkpointing on and off, and its best counts. Weights are random, in the shapes of Llama 3.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from pydantic import TypeAdapter
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiled
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig, SFTTrainer

from danlu.data.packing import Pack
from danlu.engine.config import EngineConfig
from danlu.engine.engine import Engine
from danlu.engine.step import train_step
from danlu.engine.training import Training
from danlu.models.adapters.full import Full
from danlu.models.adapters.lora import Lora
from danlu.models.blocks import blocks_of
from danlu.models.policy import Policy
from danlu.models.quantizers.base import Quantizer, quantizers
from danlu.objectives.sft import SFT

PEAK = 989e12
SHAPES = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4},
}
SMALL_HEADS = {"1b": 64, "tiny": 64}


def random_model(size: str, layers: int | None) -> PreTrainedModel:
    """Random bf16 weights, made where they are used."""
    shape = SHAPES[size] | ({"num_hidden_layers": layers} if layers else {})
    config = LlamaConfig(
        vocab_size=128256,
        num_key_value_heads=8 if size != "tiny" else 2,
        head_dim=SMALL_HEADS.get(size, 128),
        max_position_embeddings=131072,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=size in ("1b", "3b"),
        use_cache=False,
        **shape,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device()):
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)


def device() -> str:
    """Where to train."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def lengths_of(given) -> Iterator[list[int]]:
    """The segments' lengths of each pack: all alike, or drawn as real chats' are (log-normal, mean about 300)."""
    draw = np.random.default_rng(0)
    while True:
        if given.segments:
            yield [given.segments] * (given.tokens // given.segments)
            continue
        lengths, left = [], given.tokens
        while left > 0:
            lengths.append(int(min(left, max(16, draw.lognormal(5.3, 0.9)))))
            left -= lengths[-1]
        yield lengths


def packs_of(given) -> list[Pack]:
    """A pack a step of random tokens, all of them trained."""
    draw, packs = np.random.default_rng(1), []
    for lengths, _ in zip(lengths_of(given), range(given.warm + given.steps), strict=False):
        packs.append(Pack.of([(draw.integers(3, 128000, n), np.ones(n, bool)) for n in lengths]))
    return packs


def danlu(given) -> tuple[float, float]:
    """Steps of danlu's own loop: seconds a step, and the last loss."""
    model = random_model(given.size, given.layers)
    if given.quantizer:
        quantize(model, optional(given.quantizer))
    engine = Engine(EngineConfig(steps=100, precision="bf16", gradient_checkpointing="none"))
    adapter = Full() if given.adapter == "full" else Lora(rank=16, alpha=32)
    policy = Policy(adapter.apply(model).to(engine.device)).train()  # type: ignore[arg-type]
    training = Training(engine.config, {"policy": policy}, engine.dtype, 100, lambda name: 1.0)
    engine.prepare(policy, 10**9)
    packs, objective, clock = packs_of(given), SFT(), []
    for pack in packs:
        update = train_step(engine, training, objective, [pack], lambda: False)
        tick(clock, given)
    if given.profile:
        profile(lambda: train_step(engine, training, objective, packs[:1], lambda: False))
    return pace(clock, given), update.loss


def quantize(model: PreTrainedModel, quantizer: Quantizer) -> None:
    """Store the linear layers of the blocks in fewer bits."""
    _, blocks = blocks_of(model)
    for block in blocks:
        for name, module in list(block.named_modules()):
            if isinstance(module, torch.nn.Linear):
                block.set_submodule(name, quantizer.layer(module))


def optional(name: str) -> Quantizer:
    """A quantizer by its name."""
    return TypeAdapter(Annotated[Quantizer, quantizers]).validate_python(name)


def useful(given) -> float:
    """Arithmetic a token needs: products, and causal attention inside its segment (about 300 long, where drawn)."""
    shape = SHAPES[given.size]
    layers, hidden = given.layers or shape["num_hidden_layers"], shape["hidden_size"]
    heads = shape["num_attention_heads"] * SMALL_HEADS.get(given.size, 128)
    keys = (8 if given.size != "tiny" else 2) * SMALL_HEADS.get(given.size, 128)
    block = 2 * hidden * heads + 2 * hidden * keys + 3 * hidden * shape["intermediate_size"]
    weights = layers * block + 128256 * hidden
    return (6 if given.adapter == "full" else 4) * weights + 6 * (given.segments or 300) * heads * layers


def trl(given, *, checkpointing: bool) -> tuple[float, float]:
    """The same by TRL's trainer with Liger's kernels; rows of different lengths are packed as it packs them."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<u>": 0, "<e>": 1, "<p>": 2}, unk_token="<u>")),
        eos_token="<e>", pad_token="<p>", unk_token="<u>",
    )  # fmt: skip
    rows = [row.tolist() for pack in packs_of(given) for row in pack.input_ids.split(pack.lengths)]
    packed = not given.segments
    longest = 2048 if packed else given.segments
    clock: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args, **kwargs) -> None:
            tick(clock, given)

    config = SFTConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=given.tokens // longest, max_length=longest,
        bf16=True, use_liger_kernel=True, gradient_checkpointing=checkpointing, max_steps=given.warm + given.steps,
        logging_steps=1, save_strategy="no", report_to=[], optim="adamw_torch_fused", learning_rate=1e-4,
        packing=packed, packing_strategy="wrapped",
    )  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=random_model(given.size, given.layers), args=config, processing_class=tokenizer, callbacks=[Clock()],
        train_dataset=Dataset.from_list([{"input_ids": row} for row in rows]),
        peft_config=None if given.adapter == "full" else lora,
    )  # fmt: skip
    trainer.train()
    losses = [one["loss"] for one in trainer.state.log_history if "loss" in one]
    return pace(clock, given), float(losses[-1])


def tick(clock: list[float], given) -> None:
    """A step is made; only where the clock is read does anybody wait for the GPU."""
    if len(clock) + 1 in (given.warm, given.warm + given.steps):
        wait()
    clock.append(time.perf_counter())


def pace(clock: list[float], given) -> float:
    """Seconds a step, after the warm-up."""
    return (clock[-1] - clock[given.warm - 1]) / given.steps


WAYS = {
    "danlu": danlu,
    "trl": lambda given: trl(given, checkpointing=False),
    "trl checkpointing": lambda given: trl(given, checkpointing=True),
}


def measured(way: str, given) -> dict[str, object]:
    """What one way does."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds, loss = WAYS[way](given)
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    speed = given.tokens / seconds
    return {
        "way": way, "tokens/s": round(speed), "ms": round(1000 * seconds, 1), "peak GiB": round(peak, 1),
        "MFU": round(speed * useful(given) / PEAK, 3), "loss": round(loss, 4),
    }  # fmt: skip


def wait() -> None:
    """Until the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def profile(step: Callable[[], object]) -> None:
    """Where a step's time goes on the GPU."""
    with profiled(activities=[ProfilerActivity.CUDA]) as found:
        step()
        wait()
    print(found.key_averages().table(sort_by="cuda_time_total", row_limit=25, max_name_column_width=60)[:6000])


def main() -> None:
    """Each way in turn, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="8b")
    parser.add_argument("--layers", type=int, help="fewer blocks than the shape has")
    parser.add_argument("--adapter", choices=("lora", "full"), default="lora")
    parser.add_argument("--quantizer", choices=("nf4", "int8", "fp8"), help="how danlu stores the frozen weights")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of a step")
    parser.add_argument("--segments", type=int, default=2048, help="tokens of each segment; 0 draws them like chats")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warm", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    found = []
    for way in given.ways.split(","):
        try:
            found.append(measured(way, given))
        except torch.OutOfMemoryError as error:
            print(f"{way}: {error!s:.80}", flush=True)
            continue
        print(json.dumps(found[-1]), flush=True)
    peers = [one["tokens/s"] for one in found if one["way"] != "danlu"]
    if peers and found[0]["way"] == "danlu":
        print(f"ratio to the best peer: {found[0]['tokens/s'] / max(peers):.2f}")  # type: ignore[operator]


if __name__ == "__main__":
    main()
