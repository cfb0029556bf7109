"""What is to be expected from each token on: a small layer on the policy's hidden states, whose base it shares."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from danlu.models.policy import Policy

FILE = "value_head.safetensors"


class Critic(nn.Module):
    """A number for each token, 0 everywhere at the beginning."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        width = policy.inner.config.get_text_config().hidden_size
        self.summary = nn.Linear(width, 1, device=policy.device)
        with torch.no_grad():
            for parameter in self.summary.parameters():
                parameter.zero_()

    def values(self, hidden_NH: Tensor) -> Tensor:
        """[N] fp32, of N hidden states."""
        weight, bias = self.summary.weight.float(), self.summary.bias.float()
        return nn.functional.linear(hidden_NH.float(), weight, bias)[:, 0]

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write it beside the policy; `state` holds its fp32 values by name."""
        save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, folder / FILE)
