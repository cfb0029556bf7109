"""A model's stack of blocks, found by structure: no table of architectures."""

from torch import nn


def blocks_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The dotted path and the list of the transformer blocks: the module list that holds most of the parameters."""
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    assert lists, f"{type(model).__name__} has no list of blocks"
    return max(lists, key=lambda found: sum(parameter.numel() for parameter in found[1].parameters()))


def inside(path: str, wanted: str) -> bool:
    """Whether components stand whole in a dotted path: `1.mlp` is in `layers.1.mlp.up`, not in `layers.11.mlp`"""
    return f".{wanted}." in f".{path}."


def names_in_blocks(model: nn.Module) -> set[str]:
    """Every component of a module or parameter path inside a block: self_attn, mlp, q_proj, weight …"""
    _, blocks = blocks_of(model)
    return {part for block in blocks for name, _ in block.named_parameters() for part in name.split(".")}
