"""The planner's peak beside the measured one: models of several shapes, methods, lengths and ways to recompute.

    python benchmarks/gpu_memory.py [--only 8B] [--compile] [--seconds 330] [--terms]
    python benchmarks/gpu_memory.py --device cpu --tiny        # the same cases in miniature, to see that they run

Weights are random and made on the device; two steps of two packs each go through the engine's own step, and the most
that was allocated in them is compared with what `danlu plan` says from the configuration alone. Prints a table in
Markdown; exit code 1 if a case failed or a prediction was further than --within percent from its measurement.
"""

import argparse
import gc
import os
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from itertools import accumulate

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from danlu.data.packing import IGNORED, Pack, Segment
from danlu.engine.config import EngineConfig
from danlu.engine.engine import Engine
from danlu.engine.optimizers.base import optimizers
from danlu.engine.planner.plan import Device, Plan
from danlu.engine.planner.planner import OutlineBuilder, Planner
from danlu.engine.planner.speed import tokens_per_second
from danlu.engine.room import Room
from danlu.engine.step import train_step
from danlu.engine.training import Training
from danlu.models.adapters.base import Adapter
from danlu.models.adapters.full import Full
from danlu.models.adapters.lora import Lora
from danlu.models.kernels.segment_attention import causal_bias
from danlu.models.load import ModelConfig
from danlu.models.policy import Policy
from danlu.models.quantized_loading import quantize_blocks
from danlu.models.quantizers.base import Quantizer, quantizers
from danlu.objectives.sft import SFT
from danlu.runs.plan import here

GIB = 2**30
LLAMA = {"model_type": "llama", "vocab_size": 128256, "num_key_value_heads": 8, "max_position_embeddings": 131072}
QWEN3 = {"model_type": "qwen3", "vocab_size": 151936, "num_key_value_heads": 8, "head_dim": 128}
TIED = {"tie_word_embeddings": True}


def sizes(hidden: int, inner: int, layers: int, heads: int) -> dict[str, int]:
    """The four numbers that tell models of a family apart."""
    words = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return dict(zip(words, (hidden, inner, layers, heads), strict=True))


SHAPES = {
    "Qwen3-0.6B": QWEN3 | TIED | sizes(1024, 3072, 28, 16),
    "Llama-3.2-1B": LLAMA | sizes(2048, 8192, 16, 32) | TIED,
    "Llama-3.2-3B": LLAMA | sizes(3072, 8192, 28, 24) | TIED,
    "Qwen3-4B": QWEN3 | TIED | sizes(2560, 9728, 36, 32),
    "Llama-3.1-8B": LLAMA | sizes(4096, 14336, 32, 32),
}


@dataclass(frozen=True)
class Case:
    """One run. `base` is how frozen weights are stored; `recomputed` is none, full or how many blocks."""

    shape: str
    method: str
    pack: int
    rows: int
    recomputed: str | int = "none"
    optimizer: str = "adamw"

    @property
    def adapter(self) -> Adapter:
        """Which weights learn."""
        return Full() if self.method == "full" else Lora(rank=16)

    @property
    def quantizer(self) -> Quantizer | None:
        """qlora is nf4; lora-int8 and lora-fp8 say it themselves."""
        name = {"qlora": "nf4", "lora-int8": "int8", "lora-fp8": "fp8"}.get(self.method)
        return quantizers[name]() if name else None


CASES = [
    Case("Qwen3-0.6B", "full", 4096, 1024),
    Case("Qwen3-0.6B", "lora", 16384, 16384),
    Case("Llama-3.2-1B", "lora", 8192, 1024),
    Case("Llama-3.2-1B", "full", 4096, 2048),
    Case("Llama-3.2-1B", "full", 16384, 8192, "full"),
    Case("Llama-3.2-1B", "full", 8192, 4096, 8, "adamw8bit"),
    Case("Llama-3.2-3B", "lora", 8192, 2048),
    Case("Llama-3.2-3B", "full", 2048, 2048, "full"),
    Case("Qwen3-4B", "lora", 4096, 4096),
    Case("Qwen3-4B", "qlora", 16384, 16384, "full"),
    Case("Llama-3.1-8B", "qlora", 2048, 1024),
    Case("Llama-3.1-8B", "qlora", 8192, 8192, 16),
    Case("Llama-3.1-8B", "lora-fp8", 4096, 2048),
    Case("Llama-3.1-8B", "lora", 4096, 2048),
    Case("Llama-3.1-8B", "lora", 8192, 2048),
    Case("Llama-3.1-8B", "lora", 16384, 16384, "full"),
]


@dataclass(frozen=True)
class Found:
    """What came out: bytes held before the first step, the most in the steps, and tokens a second of the last."""

    plan: Plan
    held: float
    peak: float
    speed: float
    predicted_speed: float | None

    @property
    def error(self) -> float:
        """Of the prediction, in percent of the measurement."""
        return 100 * (self.plan.peak / self.peak - 1)


def config_of(case: Case, tiny: bool) -> PreTrainedConfig:
    """The configuration of a case's model."""
    fields = dict(SHAPES[case.shape])
    if tiny:
        fields |= {"vocab_size": 512, "head_dim": 16} | sizes(64, 160, 4, 4) | {"num_key_value_heads": 2}
    kind = fields.pop("model_type")
    return AutoConfig.for_model(kind, dtype="bfloat16", **fields)


def measure(case: Case, device: Device, tiny: bool, compiled: bool) -> Found:
    """Predict, then run."""
    pack_tokens, rows = (case.pack // 16, case.rows // 16) if tiny else (case.pack, case.rows)
    recomputed = min(case.recomputed, 2) if tiny and isinstance(case.recomputed, int) else case.recomputed
    config = config_of(case, tiny)
    engine_config = EngineConfig(
        precision="bf16",
        device=device.kind,
        compile=compiled,
        gradient_checkpointing=recomputed,
        optimizer=optimizers[case.optimizer](),
    )
    engine = Engine(engine_config)
    plan, predicted = predict(case, config, engine, device, pack_tokens, rows)
    training, room = prepare(case, config, engine, pack_tokens)
    torch.manual_seed(0)
    packs = [random_pack(pack_tokens, rows, config.vocab_size) for _ in range(2)]
    reset(engine.device)
    held = held_bytes(engine.device)
    with peak_of(engine.device, held) as peak:
        for _ in range(2):
            started = time.perf_counter()
            train_step(engine, training, SFT(), room.fitted(packs), lambda: False)
            synchronize(engine.device)
            seconds = time.perf_counter() - started
    return Found(plan, held, peak[0], 2 * pack_tokens / seconds, predicted)


def predict(
    case: Case, config: PreTrainedConfig, engine: Engine, device: Device, tokens: int, rows: int
) -> tuple[Plan, float | None]:
    """What the planner says, from a folder with nothing but config.json."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        model = ModelConfig(path=folder, quantizer=case.quantizer)
        build = OutlineBuilder(model, case.adapter)
        planner = Planner(build, SFT(), engine.config, engine.dtype, device, longest=rows, most=2 * tokens)
        plan = planner.choose(tokens, engine.config.gradient_checkpointing)
    gpu = device.gpu
    return plan, gpu and tokens_per_second(planner.policy, plan, gpu, engine.dtype, step_tokens=2 * tokens)


def prepare(case: Case, config: PreTrainedConfig, engine: Engine, pack_tokens: int) -> tuple[Training, Room]:
    """Random weights on the device, and everything that a run puts beside them."""
    with engine.device:
        model = AutoModelForCausalLM.from_config(config, dtype=engine.dtype)
    if case.quantizer is not None:
        quantize_blocks(model, case.quantizer)
    with engine.device:
        adapted = case.adapter.apply(model)
    policy = Policy(adapted).train()  # type: ignore[arg-type]
    training = Training(engine.config, {"policy": policy}, engine.dtype, 10, lambda name: 1.0)
    engine.prepare(policy, 10**9)
    return training, Room(engine, training, pack_tokens=pack_tokens)


def random_pack(tokens: int, rows: int, vocabulary: int) -> Pack:
    """A full pack of rows of one length, every token of which is trained but the last of each."""
    lengths = [rows] * (tokens // rows)
    ids = torch.randint(0, vocabulary, (sum(lengths),))
    targets = ids.roll(-1)
    ends = torch.tensor([0, *lengths]).cumsum(0)
    targets[ends[1:] - 1] = IGNORED
    positions = torch.cat([torch.arange(n) for n in lengths])
    weights = (targets != IGNORED).float()
    segments = [Segment("", "", number) for number in range(len(lengths))]
    return Pack(ids, positions, targets, weights, ends.to(torch.int32), segments)


def reset(device: torch.device) -> None:
    """Nothing of what came before is counted."""
    causal_bias.cache_clear()  # what a processor's attention remembers
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def held_bytes(device: torch.device) -> float:
    """What is there before the first step."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    alive = [each for each in gc.get_objects() if isinstance(each, torch.Tensor) and each.device == device]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in alive}
    return sum(storage.nbytes() for storage in storages.values())


class peak_of:
    """`with peak_of(device, held) as peak:` leaves the most that was allocated in `peak[0]`."""

    def __init__(self, device: torch.device, held: float) -> None:
        self.device, self.held, self.peak = device, held, [0.0]
        activities = [torch.profiler.ProfilerActivity.CPU]
        on_cpu = device.type == "cpu"
        self.profile = torch.profiler.profile(activities=activities, profile_memory=True) if on_cpu else None

    def __enter__(self) -> list[float]:
        if self.profile is not None:
            self.profile.__enter__()
        return self.peak

    def __exit__(self, *error: object) -> None:
        if self.profile is None:
            self.peak[0] = torch.cuda.max_memory_allocated()
            return
        self.profile.__exit__(None, None, None)
        events = [each for each in self.profile.profiler.kineto_results.events() if each.name() == "[memory]"]  # type: ignore[union-attr]
        self.peak[0] = self.held + max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def row(case: Case, found: Found | None, unit: float) -> str:
    """A line of the table."""
    facts = [case.shape, case.method, case.optimizer, f"{case.pack:,}", f"{case.rows:,}", str(case.recomputed)]
    if found is None:
        return f"| {' | '.join([*facts, 'failed', '', '', '', ''])} |"
    speed = f"{found.predicted_speed:,.0f}" if found.predicted_speed else ""
    sizes = [f"{found.plan.peak / unit:.2f}", f"{found.peak / unit:.2f}", f"{found.error:+.1f} %"]
    return f"| {' | '.join([*facts, *sizes, speed, f'{found.speed:,.0f}'])} |"


def terms(found: Found, unit: float) -> str:
    """The prediction by term, and what was held before the first step beside what should have been."""
    parts = ", ".join(f"{name} {value / unit:.2f}" for name, value in found.plan.terms.items())
    kept = found.plan.holdings
    before = (kept.weights + kept.learning + kept.masters) / unit
    return f"    {parts}; before the first step {found.held / unit:.2f}, planned {before:.2f}"


def main() -> int:
    """Run every case that there is time for; one that fails stops no other."""
    given = arguments()
    torch.manual_seed(0)
    device = here(cpu=given.device == "cpu")
    unit, name = (GIB / 1024, "MiB") if given.tiny else (GIB, "GiB")
    print(f"{device.name}, torch {torch.__version__}\n")
    sizes = f"planned {name} | measured {name} | error | planned tokens/s | measured"
    print(f"| shape | method | optimiser | pack | rows | recomputed | {sizes} |")
    print("|---|---|---|---:|---:|---|---:|---:|---:|---:|---:|", flush=True)
    started, bad, errors = time.perf_counter(), 0, []
    for case in CASES:
        if given.only not in f"{case.shape} {case.method}" or time.perf_counter() - started > given.seconds:
            continue
        found = None
        try:
            found = measure(case, device, given.tiny, given.compile)
            errors.append(abs(found.error))
            bad += errors[-1] > given.within
        except Exception:  # the others are still worth their time
            bad += 1
            traceback.print_exc(limit=-4)
        print(row(case, found, unit), flush=True)
        if found is not None and given.terms:
            print(terms(found, unit), file=sys.stderr, flush=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    worst = f"{max(errors):.1f} %" if errors else "none"
    print(f"\n{len(errors)} cases in {time.perf_counter() - started:.0f} s; the largest error is {worst}")
    return 1 if bad else 0


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the same cases in miniature")
    parser.add_argument("--only", default="", help="cases whose shape and method hold this")
    parser.add_argument("--compile", action="store_true", help="with torch's compiler in each block")
    parser.add_argument("--seconds", type=float, default=330, help="no case begins after this")
    parser.add_argument("--within", type=float, default=10, help="largest error, in percent, that is no failure")
    parser.add_argument("--terms", action="store_true", help="each prediction by term, on stderr")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
