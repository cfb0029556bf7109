"""Another model's adapter beside the one that learns, over the same base weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from danlu.core.errors import UserError
from danlu.data.packing import Pack
from danlu.models.classifier import SCORE
from danlu.models.load import base_of, check_safetensors, read_config
from danlu.models.policy import Policy
from danlu.models.quantized_loading import Quantization, read_quantizer
from danlu.models.resolve import ADAPTER, MODEL
from danlu.models.scorer import last_places

WEIGHTS = "adapter_model.safetensors"


def cannot_lodge(model: nn.Module, folder: Path) -> str | None:
    """Why the adapter of a folder cannot lie beside a model's own; None where it can."""
    if not (folder / ADAPTER).is_file():
        return "it is no adapter"
    if not isinstance(model, PeftModel):
        return "the policy's own base learns; adapter: lora leaves it as it is"
    config = read_config(folder / ADAPTER)
    odd = [name for name in ("use_dora", "lora_bias", "megatron_config") if config.get(name)]
    others = [name for name in config.get("modules_to_save") or [] if name not in (SCORE, "classifier")]
    if config.get("peft_type") != "LORA" or odd or others:
        return f"it is no plain LoRA ({', '.join([str(config.get('peft_type')), *odd, *others])})"
    inner, base = model.get_base_model(), base_of(folder)
    assert isinstance(inner, PreTrainedModel)
    stored = getattr(inner.config, "quantization_config", None)
    if config.get("task_type") != "SEQ_CLS":
        return "it is a language model's"
    if read_quantizer(folder) != (stored.quantizer if isinstance(stored, Quantization) else None):
        return "its base is quantized otherwise"
    if read_config(base / MODEL).get("model_type") != inner.config.model_type or not same_weights(inner, base):
        return f"its base {base} is not the policy's"
    return None


def same_weights(model: PreTrainedModel, folder: Path) -> bool:
    """Whether a model's matrices begin as those of a folder; of quantized ones only what is left whole is compared."""
    own = {name.replace(".base_layer", ""): parameter for name, parameter in model.named_parameters()}
    compared = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            for name in set(stored.keys()) & own.keys():
                if own[name].ndim != 2 or not own[name].is_floating_point():
                    continue
                row, mine = stored.get_slice(name)[:1], own[name].detach()[:1].cpu()
                if row.shape != mine.shape or not torch.equal(row.to(mine.dtype), mine):
                    return False
                compared += 1
    return compared > 0


def lodge(model: PeftModel, name: str, folder: Path) -> Tensor:
    """Put a reward model's adapter beside, frozen and off; returns its score layer's weight, [1,H]."""
    config = LoraConfig.from_pretrained(str(folder))
    assert isinstance(config, LoraConfig), "who may lodge was asked before"
    config.modules_to_save, config.task_type, config.inference_mode = None, "CAUSAL_LM", True
    check_safetensors(folder, "adapter_model")
    weights = load_file(folder / WEIGHTS)
    scores = [key for key in weights if f".{SCORE}." in key]
    if len(scores) != 1:
        raise UserError(f"{folder}: expected the weight of one score layer, found {len(scores)}")
    score = weights.pop(scores[0])
    before = {id(parameter): parameter.requires_grad for parameter in model.parameters()}
    model.add_adapter(name, config)  # type: ignore[arg-type]
    found = set_peft_model_state_dict(model, weights, adapter_name=name)
    if found.unexpected_keys:
        raise UserError(
            f"{folder}: this adapter does not fit the policy's base: {', '.join(found.unexpected_keys[:3])}"
        )
    for parameter in model.parameters():
        parameter.requires_grad_(before.get(id(parameter), False))
    return score


@contextmanager
def shown(model: PeftModel, name: str) -> Iterator[None]:
    """Inside, the model computes with another of its adapters; what learns stays what learns."""
    [own] = model.active_adapters
    learning = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.set_adapter(name, inference_mode=True)
    try:
        yield
    finally:
        model.set_adapter(own)
        for parameter, learns in learning:
            parameter.requires_grad_(learns)


class Lodger:
    """A reward model whose adapter lies beside a policy's: one set of base weights for both."""

    def __init__(self, policy: Policy, folder: Path) -> None:
        assert isinstance(policy.model, PeftModel)
        self.policy, self.model = policy, policy.model
        self.name = f"lodger_{len(policy.model.peft_config)}"
        self.weight_1H = lodge(policy.model, self.name, folder).to(policy.device).float()

    def scores(self, pack: Pack) -> Tensor:
        """[S] fp32, one of each segment, as the reward model alone would give them."""
        training = self.policy.training
        self.policy.eval()
        try:
            with torch.no_grad(), shown(self.model, self.name):
                hidden_SH = self.policy.hidden(pack)[last_places(pack, self.policy.inner)].float()
        finally:
            self.policy.train(training)
        return nn.functional.linear(hidden_SH, self.weight_1H)[:, 0]
