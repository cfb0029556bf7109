"""Some blocks of the model learn, the rest is frozen."""

from pathlib import Path

from pydantic import field_validator
from torch import Tensor, nn
from transformers import PreTrainedModel

from danlu.core.errors import UserError
from danlu.core.parts import did_you_mean
from danlu.models.adapters.base import Adapter
from danlu.models.adapters.full import refuse_quantized
from danlu.models.blocks import blocks_of, inside, names_in_blocks
from danlu.models.classifier import SCORE, score_of
from danlu.models.save import save_weights


class Freeze(Adapter):
    """Some blocks of the model learn, the rest is frozen."""

    blocks: int = 2
    """how many blocks learn: the last n, or with -n the first n"""
    modules: list[str] = []
    """which modules of those blocks learn, such as mlp or self_attn.q_proj; all of them when empty"""
    embeddings: bool = False
    """the token embeddings and the output layer learn too"""
    norm: bool = False
    """the norms outside the blocks learn too"""

    @field_validator("blocks")
    @classmethod
    def _some(cls, blocks: int) -> int:
        if blocks == 0:
            raise ValueError("0 blocks would leave nothing to learn; n is the last n blocks, -n the first n")
        return blocks

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Mark the weights of the chosen blocks."""
        refuse_quantized(model, "freeze")
        model.requires_grad_(False)
        for parameter in self.chosen(model).values():
            parameter.requires_grad_(True)
        return model

    def chosen(self, model: PreTrainedModel) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name."""
        path, blocks = blocks_of(model)
        if abs(self.blocks) > len(blocks):
            raise UserError(f"adapter.blocks: {self.blocks}, but {type(model).__name__} has {len(blocks)} blocks")
        self.check_modules(model)
        numbers = range(len(blocks))[-self.blocks :] if self.blocks > 0 else range(-self.blocks)
        found = {}
        for number in numbers:
            for name, parameter in blocks[number].named_parameters():
                if not self.modules or any(inside(name, wanted) for wanted in self.modules):
                    found[f"{path}.{number}.{name}"] = parameter
        score = score_of(model)
        head = {f"{SCORE}.{name}": each for name, each in score.named_parameters()} if score is not None else {}
        return found | self.outside(model, path) | head

    def outside(self, model: PreTrainedModel, path: str) -> dict[str, nn.Parameter]:
        """The parameters outside the blocks that learn: tables if `embeddings`, the rest if `norm`."""
        layers = (model.get_input_embeddings(), model.get_output_embeddings())
        tables = {id(table) for layer in layers if layer for table in layer.parameters()}
        others = {name: parameter for name, parameter in model.named_parameters() if not name.startswith(f"{path}.")}
        return {name: each for name, each in others.items() if (self.embeddings if id(each) in tables else self.norm)}

    def check_modules(self, model: PreTrainedModel) -> None:
        """Every module named must be in a block."""
        _, blocks = blocks_of(model)
        paths = [name for block in blocks for name, _ in block.named_parameters()]
        known = sorted(names_in_blocks(model) - {"weight", "bias"})
        for wanted in self.modules:
            if not any(inside(path, wanted) for path in paths):
                hint = f"{did_you_mean(wanted, known)} (known: {', '.join(known)})"
                raise UserError(f"adapter.modules: no {wanted!r} in a block of {type(model).__name__}{hint}")

    def save(self, model: nn.Module, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write the whole model."""
        save_weights(model, folder, state)
