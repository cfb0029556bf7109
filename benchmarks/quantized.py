"""Quantized bases, 8-bit optimisers and fp8 products on this machine: bytes, errors, times, and that a GPU obeys.

    python benchmarks/quantized.py                     # small sizes on a processor, an 8B model's on a GPU

Prints one line for each quantizer (bits and error of a weight, ms of dense_weight, ms of a fused LoRA linear forward
and backward, against bf16), then one for each check: loading right onto the device, paged states through a checkpoint,
fp8 products.
"""

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn

from danlu.engine.optimizer_state import optimizer_state, restore_optimizer
from danlu.engine.optimizers.base import optimizers
from danlu.models.adapters import adapters
from danlu.models.dense import dense_weight
from danlu.models.fused import fuse_lora
from danlu.models.load import ModelConfig, build_model
from danlu.models.quantizers.base import quantizers

SMALL, LARGE = (576, 1536, 256), (4096, 14336, 8192)
"""inputs, outputs and tokens"""


def milliseconds(do: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """The least of several times."""
    times = []
    for _ in range(repeats + 2):
        synchronize(device)
        begun = time.perf_counter()
        do()
        synchronize(device)
        times.append(time.perf_counter() - begun)
    return 1000 * min(times[2:])


def synchronize(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def layers(inputs: int, outputs: int, device: torch.device) -> dict[str, nn.Linear]:
    """The same layer in bf16 and quantized in each way."""
    torch.manual_seed(0)
    plain = nn.Linear(inputs, outputs, bias=False, device=device, dtype=torch.bfloat16).requires_grad_(False)
    nn.init.normal_(plain.weight, std=0.02)
    return {"bf16": plain} | {name: quantizers[name]().layer(plain) for name in quantizers}


def with_lora(layer: nn.Linear, device: torch.device) -> PeftLinear:
    """A layer with a fused adapter of rank 16."""
    torch.manual_seed(1)
    wrapped = PeftLinear(layer, "default", LoraConfig(r=16), r=16, lora_alpha=32).to(device, torch.bfloat16)
    nn.init.normal_(wrapped.lora_B["default"].weight, std=0.02)
    fuse_lora(nn.ModuleList([wrapped]))
    return wrapped


def measure(device: torch.device) -> None:
    """A line for each way to store a weight."""
    inputs, outputs, tokens = LARGE if device.type == "cuda" else SMALL
    x = torch.randn(1, tokens, inputs, device=device, dtype=torch.bfloat16, requires_grad=True)
    ways = layers(inputs, outputs, device)
    whole, results = ways["bf16"].weight.float(), {}
    print(f"{device}: [{outputs}, {inputs}], {tokens} tokens")
    for name, layer in ways.items():
        bits = 8 * sum(value.nbytes for value in layer.state_dict().values()) / whole.numel()
        error = ((dense_weight(layer).float() - whole).norm() / whole.norm()).item()
        lora = with_lora(layer, device)

        def both(lora: PeftLinear = lora) -> Tensor:
            out = lora(x)
            out.backward(torch.ones_like(out))
            return out

        results[name] = both().float()
        away = ((results[name] - results["bf16"]).norm() / results["bf16"].norm()).item()
        dense = milliseconds(lambda layer=layer: dense_weight(layer), device)
        print(
            f"{name:5} {bits:6.2f} bits  weight error {error:.4f}  output error {away:.4f}  "
            f"dense {dense:7.3f} ms  LoRA forward+backward {milliseconds(both, device):8.3f} ms"
        )


def check_loading(device: torch.device) -> None:
    """Every quantizer packs right onto the device, as it would on the processor."""
    ids = torch.arange(3, 43)[None]
    for name in quantizers:
        config = ModelConfig.model_validate({"path": "builtin:tiny-llama", "quantizer": name})
        here, there = (build_model(config, torch.float32, where) for where in (torch.device("cpu"), device))
        with torch.no_grad():
            near, exact = there(ids.to(device)).logits.cpu(), here(ids).logits
        assert next(there.parameters()).device.type == device.type
        print(f"loaded onto {device} with {name}: logits differ by {((near - exact).norm() / exact.norm()).item():.1e}")


def check_pages(device: torch.device) -> None:
    """Paged states go through a checkpoint, and into pages again."""
    for name in ("adamw8bit", "lion8bit", "paged_adamw"):
        settings = optimizers[name].model_validate({"paged": device.type == "cuda", "lr": 1e-2})
        weights = [nn.Parameter(torch.ones(1024, 256, device=device)) for _ in range(2)]
        made = [settings.build(settings.groups([("weight", weight)])) for weight in weights]
        for step in range(4):
            for optimizer, weight in zip(made, weights, strict=True):
                weight.grad = torch.randn(1024, 256, generator=torch.Generator().manual_seed(step)).to(device)
                optimizer.step()
            if step == 1:
                saved = optimizer_state(made[0], {weights[0]: "weight"})
                restore_optimizer(made[1], {weights[1]: "weight"}, *saved)
                settings.resumed(made[1])
        paged = getattr(made[1].state[weights[1]]["state1"], "is_paged", False)
        print(f"{name}: resumed to the same bits: {torch.equal(*weights)}, states paged: {paged}")


def check_fp8(device: torch.device) -> None:
    """One step of full fine-tuning with products in fp8."""
    if find_spec("torchao") is None or device.type != "cuda":
        print("full_fp8: not here (needs torchao and a GPU)")
        return
    for scaling in ("tensorwise", "rowwise"):
        adapter = adapters["full_fp8"].model_validate({"scaling": scaling})
        adapter.check(device)
        config = ModelConfig(path="builtin:tiny-llama")
        exact = build_model(config, torch.bfloat16).to(device)  # type: ignore[arg-type]
        model = adapter.apply(build_model(config, torch.bfloat16)).to(device)
        ids = torch.arange(3, 40, device=device)[None]  # 37 tokens: no multiple of 16
        logits, expected = model(ids).logits.float(), exact(ids).logits.float()
        logits.square().sum().backward()
        finite = all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        away = ((logits - expected).norm() / expected.norm()).item()
        print(f"full_fp8 {scaling}: logits differ by {away:.4f} from bf16's, gradients finite: {finite}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(parser.parse_args().device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", torch.cuda.current_device())
    measure(chosen)
    check_loading(chosen)
    check_pages(chosen)
    check_fp8(chosen)
