"""Low-rank adaptation: small matrices beside frozen ones learn: https://arxiv.org/abs/2106.09685"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from danlu.core.errors import UserError
from danlu.core.parts import did_you_mean
from danlu.models.adapters.base import Adapter
from danlu.models.blocks import blocks_of, inside
from danlu.models.classifier import score_of
from danlu.models.load import gives_scores, load_adapter, resolve
from danlu.models.save import save_adapter

log = logging.getLogger(__name__)

ALL = "all-linear"


class Lora(Adapter):
    """Small low-rank matrices beside the frozen weights learn."""

    rank: int = Field(default=16, ge=1)
    """inner size of the matrices"""
    alpha: int = Field(default=32, ge=1)
    """their sum is scaled by alpha / rank, or alpha / sqrt(rank) with rslora"""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """share of the inputs that is dropped while learning"""
    target: str | list[str] = ALL
    """names of the linear layers, such as q_proj,v_proj; all-linear takes every one inside the blocks"""
    experts: bool = False
    """the experts of a mixture learn too"""
    embeddings: bool = False
    """the whole token embeddings and output layer learn too, as new tokens need"""
    rslora: bool = False
    """scale by the square root of the rank: https://arxiv.org/abs/2312.03732"""
    dora: bool = False
    """learn direction and size apart, slower: https://arxiv.org/abs/2402.09353"""
    plus_ratio: float = Field(default=1.0, gt=0)
    """the second matrix learns this many times faster (LoRA+ advises 16): https://arxiv.org/abs/2402.12354"""
    init: Literal["kaiming", "gaussian", "orthogonal"] = "kaiming"
    """how the first matrix begins; the second begins at zero, save with orthogonal"""
    start: str | None = None
    """go on with the adapter in this folder, whose rank and targets hold"""

    @property
    def needs_whole_weights(self) -> str | None:
        """DoRA measures the columns of the weights."""
        return "with dora measures the weights themselves" if self.dora else None

    @property
    def lies_beside(self) -> bool:
        """The base model is frozen."""
        return True

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Freeze the model and put the matrices beside the chosen layers, in float32."""
        if self.start is not None:
            return self.go_on(model, resolve(self.start))
        return get_peft_model(model, self.peft_config(model))

    def sketch(self, model: PreTrainedModel) -> nn.Module:
        """The matrices' shapes; how they begin does not matter."""
        if self.start is None:
            return self.model_copy(update={"init": "kaiming"}).apply(model)
        config = LoraConfig.from_pretrained(str(resolve(self.start)))
        config.inference_mode = False
        return get_peft_model(model, config)  # type: ignore[arg-type]

    def go_on(self, model: PreTrainedModel, folder: Path) -> PeftModel:
        """The adapter of a folder, learning again."""
        if gives_scores(folder) != (score_of(model) is not None):
            kind = "a reward model's" if gives_scores(folder) else "a language model's"
            raise UserError(f"adapter.start: {folder} is {kind} adapter; give it as model.path, and it is merged")
        wrapped = load_adapter(model, folder, learns=True)
        config = wrapped.peft_config["default"]
        if not isinstance(config, LoraConfig):
            raise UserError(f"adapter.start: {folder} holds a {config.peft_type} adapter, expected LORA")
        for field, there in (("rank", config.r), ("alpha", config.lora_alpha)):
            if field in self.model_fields_set and getattr(self, field) != there:
                raise UserError(f"adapter.{field}: {getattr(self, field)}, but {folder} has {there}; leave it out")
        return wrapped

    def peft_config(self, model: PreTrainedModel) -> LoraConfig:
        """The same settings in peft's words."""
        if self.target == ALL and not self.experts and expert_tensors(model):
            log.info("the experts of this mixture do not learn; adapter.experts=true makes them")
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.targets(model),
            target_parameters=expert_parameters(model) if self.experts else None,
            modules_to_save=table_names(model) if self.embeddings else None,
            ensure_weight_tying=self.embeddings and model.config.tie_word_embeddings,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
            use_rslora=self.rslora,
            use_dora=self.dora,
            init_lora_weights=True if self.init == "kaiming" else self.init,
            bias="none",
            task_type="CAUSAL_LM" if score_of(model) is None else "SEQ_CLS",  # peft saves its layer too
        )

    def targets(self, model: PreTrainedModel) -> list[str]:
        """The layers' names; each given one must match a linear layer."""
        linear = linear_layers(model)
        if self.target == ALL:
            path, _ = blocks_of(model)
            return sorted({name.rpartition(".")[2] for name in linear if name.startswith(f"{path}.")})
        given = self.target.split(",") if isinstance(self.target, str) else self.target
        wanted = [name.strip() for name in given]
        known = sorted({name.rpartition(".")[2] for name in linear})
        for name in wanted:
            if not any(path == name or path.endswith(f".{name}") for path in linear):
                hint = f"{did_you_mean(name, known)} (known: {', '.join(known)})"
                raise UserError(f"adapter.target: no linear layer {name!r} in {type(model).__name__}{hint}")
        return wanted

    def lr_scales(self, names: Iterable[str]) -> dict[str, float]:
        """LoRA+: the second matrix, which begins at zero, learns faster."""
        return {name: self.plus_ratio if inside(name, "lora_B") else 1.0 for name in names}

    def save(self, model: nn.Module, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write the matrices in peft's layout."""
        assert isinstance(model, PeftModel)
        save_adapter(model, folder, state)


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Paths of every linear layer but the output layer."""
    head = model.get_output_embeddings()
    layers = (nn.Linear, Conv1D)
    return [name for name, module in model.named_modules() if isinstance(module, layers) and module is not head]


def expert_parameters(model: PreTrainedModel) -> list[str]:
    """Names of the tensors that hold one matrix for each expert: experts.gate_up_proj, experts.down_proj."""
    names = expert_tensors(model)
    if not names:
        raise UserError(f"adapter.experts: {type(model).__name__} is no mixture of experts")
    return names


def expert_tensors(model: PreTrainedModel) -> list[str]:
    """The last two components of the path of each tensor with three dimensions in a block."""
    _, blocks = blocks_of(model)
    found = {name for block in blocks for name, parameter in block.named_parameters() if parameter.ndim == 3}
    return sorted({".".join(name.split(".")[-2:]) for name in found})


def table_names(model: PreTrainedModel) -> list[str]:
    """Names of the token embeddings and the output layer; one table of both is known to peft by the latter."""
    head = model.get_output_embeddings()
    inputs = model.get_input_embeddings()
    tables = [inputs] if head is None else [head] if model.config.tie_word_embeddings else [head, inputs]
    return [name.rpartition(".")[2] for name, module in model.named_modules() if module in tables]
