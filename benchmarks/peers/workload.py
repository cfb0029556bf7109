"""What every way of training is given: the same random model, the same rows, and the same clock.

Weights are random, in the shapes of Llama 3. Rows are random tokens of one length, of lengths drawn like chats', or
real ones from a file of tokens (`token_file.py`). transformers is not imported before somebody asks for a model:
Unsloth wants to come first.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from peers.token_file import TokenFile

PEAK = 989e12
"""flop/s of an H100 in bf16"""
VOCABULARY = 128256
LONGEST = 2048
"""tokens of a row of real text, and of the packs that a peer makes"""
SHAPES = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4},
}
HEAD_SIZES = {"8b": 128, "3b": 128, "1b": 64, "tiny": 64}
Row = tuple[np.ndarray, np.ndarray]
"""(ids[n], trained[n] bool)"""


def parser(description: str | None) -> argparse.ArgumentParser:
    """What all programs of a comparison understand."""
    given = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--size", choices=SHAPES, default="8b")
    given.add_argument("--layers", type=int, help="fewer blocks than the shape has")
    given.add_argument("--adapter", choices=("lora", "full"), default="lora")
    given.add_argument("--quantizer", choices=("nf4", "int8", "fp8"), help="how frozen weights are stored; peers: nf4")
    given.add_argument("--checkpointing", default="none", help="of danlu's own way: none, full, or how many blocks")
    given.add_argument("--tokens", type=int, default=8192, help="tokens of a step")
    given.add_argument("--segments", type=int, default=2048, help="tokens of each row; 0 draws them like chats")
    given.add_argument("--data", help="a file of tokens: real rows instead of random ones (--prepare makes it)")
    given.add_argument("--steps", type=int, default=8)
    given.add_argument("--warm", type=int, default=3)
    given.add_argument("--folder", type=Path, help="where the model lies for peers that want it on disk")
    given.add_argument("--profile", action="store_true", help="of danlu's step")
    given.add_argument("--way", default="danlu", help=argparse.SUPPRESS)
    given.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    return given


def device() -> str:
    """Where to train."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def config_of(size: str, layers: int | None) -> Any:
    """A configuration of Llama's family."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY,
        num_key_value_heads=2 if size == "tiny" else 8,
        head_dim=HEAD_SIZES[size],
        max_position_embeddings=131072,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=size in ("1b", "3b"),
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
        use_cache=False,
        **SHAPES[size] | ({"num_hidden_layers": layers} if layers else {}),
    )  # fmt: skip


def random_model(given: argparse.Namespace) -> Any:
    """Random bf16 weights, made where they are used."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device()):
            return LlamaForCausalLM(config_of(given.size, given.layers))
    finally:
        torch.set_default_dtype(torch.float32)


def tokenizer() -> Any:
    """One word for each id: nobody reads any text."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {"<u>": 0, "<e>": 1, "<p>": 2} | {f"w{n}": n for n in range(3, VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<u>")), eos_token="<e>", pad_token="<p>", unk_token="<u>"
    )


def model_folder(given: argparse.Namespace) -> Path:
    """The model on disk, written once for all who want it so."""
    folder = given.folder or Path(tempfile.gettempdir()) / f"danlu-benchmark-{given.size}-{given.layers or 'all'}"
    done = folder / "done"
    if not done.is_file():
        random_model(given).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        done.touch()
        if device() == "cuda":
            torch.cuda.empty_cache()
    return folder


def lengths_of(given: argparse.Namespace) -> Iterator[list[int]]:
    """Lengths of random rows, a step each: all alike, or drawn as real chats' are (log-normal, mean about 300)."""
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


def rows_of(given: argparse.Namespace) -> list[Row]:
    """Rows for all steps, in the order in which they are there; real ones come again where the file is too short."""
    count = given.warm + given.steps
    if given.data:
        return TokenFile.load(Path(given.data)).rows(at_least=int(count * given.tokens * 1.1) + given.tokens)
    draw = np.random.default_rng(1)
    return [
        (draw.integers(3, 128000, n), np.ones(n, bool)) for lengths in islice(lengths_of(given), count) for n in lengths
    ]


def table_of(rows: list[Row], *, masked: bool) -> list[dict[str, list[int]]]:
    """Rows as peers' data sets take them."""
    table = [{"input_ids": ids.tolist()} for ids, _ in rows]
    if masked:
        for row, (ids, trained) in zip(table, rows, strict=True):
            row["labels"] = np.where(trained, ids.astype(np.int64), -100).tolist()
    return table


def wait() -> None:
    """Until the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def forget_peak() -> None:
    """What making the model took is not the training's."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@dataclass
class Clock:
    """When steps ended, and what was in each; only where the clock is read does anybody wait for the GPU."""

    given: argparse.Namespace
    ends: list[float] = field(default_factory=list)
    tokens: list[Any] = field(default_factory=list)
    trained: list[Any] = field(default_factory=list)

    def tick(self) -> None:
        """A step is made."""
        if len(self.ends) + 1 in (self.given.warm, self.given.warm + self.given.steps):
            wait()
        self.ends.append(time.perf_counter())

    def saw(self, batch: dict[str, Any]) -> None:
        """Count a peer's batch on its way to the model, without waiting for the GPU."""
        labels, mask = batch["labels"], batch.get("attention_mask")
        self.tokens.append(mask.sum() if mask is not None and mask.ndim == 2 else labels.numel())
        self.trained.append((labels[:, 1:] != -100).sum())

    def answer(self, loss: float, mean_length: float) -> dict[str, Any]:
        """Everything that is told of a way."""
        given, timed = self.given, slice(self.given.warm, self.given.warm + self.given.steps)
        seconds = self.ends[timed.stop - 1] - self.ends[timed.start - 1]
        tokens, trained = (sum(map(int, counts[timed])) for counts in (self.tokens, self.trained))
        peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
        return {
            "way": given.way, "tokens/s": round(tokens / seconds), "trained tokens/s": round(trained / seconds),
            "ms": round(1000 * seconds / given.steps, 1), "peak GiB": round(peak, 1),
            "MFU": round(tokens / seconds * useful(given, mean_length) / PEAK, 3), "loss": round(loss, 4),
        }  # fmt: skip


def mean_length(rows: list[Row]) -> float:
    """Of the row that a token is in."""
    lengths = np.array([len(ids) for ids, _ in rows], float)
    return float((lengths**2).sum() / lengths.sum())


def useful(given: argparse.Namespace, length: float) -> float:
    """Arithmetic that a token needs: products, and causal attention inside its row; nothing is computed twice."""
    shape, size = SHAPES[given.size], HEAD_SIZES[given.size]
    layers, hidden = given.layers or shape["num_hidden_layers"], shape["hidden_size"]
    heads, keys = shape["num_attention_heads"] * size, (2 if given.size == "tiny" else 8) * size
    block = 2 * hidden * heads + 2 * hidden * keys + 3 * hidden * shape["intermediate_size"]
    weights = layers * block + VOCABULARY * hidden
    return (6 if given.adapter == "full" else 4) * weights + 6 * length * heads * layers


def tell(given: argparse.Namespace, answer: dict[str, Any]) -> None:
    """Hand an answer to whoever started this program."""
    print(json.dumps(answer), flush=True)
    if given.answer:
        with given.answer.open("a") as writes:
            writes.write(json.dumps(answer) + "\n")
