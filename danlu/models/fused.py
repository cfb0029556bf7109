"""Replace the forward of peft's plain LoRA layers by the fused one. Their weights, names and files stay peft's."""

from types import MethodType

from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn

from danlu.models.kernels.lora_linear import LoRALinear
from danlu.models.quantized_linear import QuantizedLinear


def fuse_lora(model: nn.Module) -> int:
    """Fuse every plain LoRA linear of a model; returns how many."""
    layers = [module for module in model.modules() if isinstance(module, PeftLinear) and is_plain(module)]
    for layer in layers:
        layer.forward = MethodType(fused_forward, layer)
    return len(layers)


def is_plain(layer: PeftLinear) -> bool:
    """One adapter beside a plain linear or one quantized here, without bias, dropout or a variant such as DoRA."""
    names, base = layer.active_adapters, layer.get_base_layer()
    return (
        (type(base) is nn.Linear or isinstance(base, QuantizedLinear))
        and len(names) == 1
        and not layer.lora_variant
        and isinstance(layer.lora_dropout[names[0]], nn.Identity)
        and layer.lora_B[names[0]].bias is None
        and not layer.fan_in_fan_out
    )


def fused_forward(layer: PeftLinear, x: Tensor, *args: object, **kwargs: object) -> Tensor:
    """One autograd node; peft's own forward where the adapter is off, merged, not alone or of another dtype."""
    names = layer.active_adapters
    if args or kwargs or layer.disable_adapters or layer.merged or len(names) != 1:
        return PeftLinear.forward(layer, x, *args, **kwargs)
    base, [name] = layer.get_base_layer(), names
    if name not in layer.lora_A:  # another model's adapter, which leaves this layer as it is
        return PeftLinear.forward(layer, x)
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    if a.dtype != x.dtype:
        return PeftLinear.forward(layer, x)
    weight = base if isinstance(base, QuantizedLinear) else base.weight
    return LoRALinear.apply(x, weight, base.bias, a, b, layer.scaling[name])  # type: ignore[no-any-return]
