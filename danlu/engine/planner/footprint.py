"""What one pack's forward and backward hold at each moment, found by running them without data, block by block."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward

from danlu.data.packing import Pack
from danlu.engine.planner.live import AsIfOn, Live
from danlu.models.blocks import blocks_of
from danlu.models.masters import Masters
from danlu.models.outline import Outline
from danlu.objectives.base import Loss as Total
from danlu.objectives.base import Models

log = logging.getLogger(__name__)

Loss = Callable[[Models, Pack], Total]
"""what is run: an objective's loss"""

FEWEST_BLOCKS = 2
"""the first block's input may need no gradient, so it alone would not do"""


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of one block. forward, backward: the most beyond what is kept when it begins its way there or back."""

    kept: int
    forward: int
    backward: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes beside weights, gradients and optimiser, for a pack of some tokens.

    before: what lives when the first block begins. loss: the most beyond all that is kept, in output layer and loss.
    """

    before: int
    plain: list[Held]
    recomputed: list[Held]
    loss: int
    loss_recomputed: int
    """the same when every block is recomputed"""

    def kept(self, num_recomputed: int) -> int:
        """What the way forward keeps for the way back."""
        return self.before + sum(block.kept for block in self.blocks(num_recomputed))

    def peak(self, num_recomputed: int) -> int:
        """The most at any moment, when so many of the first blocks are recomputed in the backward pass."""
        now, most = self.before, 0
        for block in self.blocks(num_recomputed):
            most = max(most, now + block.forward, now + block.kept + block.backward)
            now += block.kept
        return max(most, now + (self.loss_recomputed if num_recomputed == len(self.plain) else self.loss))

    def blocks(self, num_recomputed: int) -> list[Held]:
        """Each block as it will run."""
        return self.recomputed[:num_recomputed] + self.plain[num_recomputed:]


class Recorder:
    """Follows one forward and backward through the blocks."""

    def __init__(self, live: Live, num_blocks: int) -> None:
        self.live, self.started, self.at = live, [0] * num_blocks, num_blocks
        self.before: int | None = None
        self.kept, self.forward, self.backward = ([0] * num_blocks for _ in range(3))
        self.loss = 0
        self.back: int | None = None
        """the block on its way back; none before the backward pass"""

    def enter(self, number: int) -> None:
        """A block begins its way forward; one that a reference goes, without a gradient, keeps nothing."""
        if self.back is None and torch.is_grad_enabled():
            self.before = self.live.now if self.before is None else self.before
            self.started[number], self.live.peak = self.live.now, self.live.now

    def leave(self, number: int, output: Tensor) -> None:
        """A block ends its way forward. Blocks of a model that reads segment by segment do so several times."""
        if self.back is None and torch.is_grad_enabled():
            self.kept[number] += self.live.now - self.started[number]
            self.forward[number] = max(self.forward[number], self.live.peak - self.started[number])
            self.live.peak = self.live.now
            if output.requires_grad:
                output.register_hook(lambda _: self.turn(number))

    def turn(self, number: int) -> None:
        """A block begins its way back, which ends that of the one after it, or of the loss."""
        self.close()
        self.back, self.live.peak = number, self.live.now

    def close(self) -> None:
        """Note the most that was held since the last turn."""
        before = self.before or 0
        if self.back is None:
            self.loss = self.live.peak - before - sum(self.kept)
        else:
            beyond = self.live.peak - before - sum(self.kept[: self.back + 1])
            self.backward[self.back] = max(self.backward[self.back], beyond)

    def blocks(self) -> list[Held]:
        """What was found."""
        return [Held(*each) for each in zip(self.kept, self.forward, self.backward, strict=True)]


def footprint(models: dict[str, Outline], masters: Masters, loss: Loss, pack: Pack, device: AsIfOn) -> Footprint:
    """Run a pack without values through a loss and back, on outlines, as on a device.

    What asks a GPU for more than its name cannot run where there is none, and is counted on the plain path.
    """
    try:
        return traced(models, masters, loss, pack, device)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        if not device.gpu:
            raise
        log.info("activations are counted as on a processor: %s", str(error).partition("\n")[0])
        return traced(models, masters, loss, pack, AsIfOn("cpu"))


def traced(models: dict[str, Outline], masters: Masters, loss: Loss, pack: Pack, device: AsIfOn) -> Footprint:
    """One pack with no block recomputed, and one with all."""
    policy = models["policy"]
    own = [tensor for model in models.values() for tensor in (*model.parameters(), *model.buffers())]
    with enough_blocks(policy) as places:
        for master in masters.parameters.values():
            master.grad = torch.empty_like(master)  # of the packs before this one
        policy.recompute(0)
        plain = trace(models, loss, pack, device, masters, own)
        policy.recompute(None)
        recomputed = trace(models, loss, pack, device, masters, own)
        policy.recompute(0)
        masters.clear()
    whole, again = plain.blocks(), recomputed.blocks()
    return Footprint(
        plain.before or 0,
        [whole[place] for place in places],
        [again[place] for place in places],
        plain.loss,
        recomputed.loss,
    )


def trace(
    models: dict[str, Outline], loss: Loss, pack: Pack, device: AsIfOn, masters: Masters, own: Sequence[Tensor]
) -> Recorder:
    """One forward and backward. `own` is what the whole models hold."""
    learning = [each for master in masters.parameters.values() for each in (master, master.grad) if each is not None]
    _, blocks = blocks_of(models["policy"].inner)
    with Live([*own, *learning]) as live, device, ExitStack() as hooks:
        recorder = Recorder(live, len(blocks))
        for number, block in enumerate(blocks):
            hooks.callback(follow(block, number, recorder))
        backward(loss({**models}, pack).total)  # type: ignore[arg-type]
        recorder.close()
    return recorder


def backward(total: Tensor) -> None:
    """What `loss.backward()` does, which itself would leave every function mode while it runs."""
    _engine_run_backward(
        (total,), (torch.ones_like(total),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def follow(block: nn.Module, number: int, recorder: Recorder) -> Any:
    """Tell the recorder when a block begins and ends; returns what stops that."""

    def enter(module: nn.Module, given: Any) -> None:
        recorder.enter(number)

    def leave(module: nn.Module, given: Any, output: Any) -> None:
        recorder.leave(number, output if isinstance(output, Tensor) else output[0])

    handles = block.register_forward_pre_hook(enter), block.register_forward_hook(leave)
    return lambda: [handle.remove() for handle in handles]


@contextmanager
def enough_blocks(policy: Outline) -> Iterator[list[int]]:
    """Inside, the model has only so many of its first blocks that every kind is among them.

    Yields which of them stands for each block of the whole model.
    """
    path, blocks = blocks_of(policy.inner)
    kinds = [kind(policy, block, number) for number, block in enumerate(blocks)]
    count = max(FEWEST_BLOCKS, 1 + max(kinds.index(each) for each in kinds))
    last = {each: number for number, each in enumerate(kinds[:count])}
    parent, _, name = path.rpartition(".")
    room = policy.inner.get_submodule(parent)
    setattr(room, name, nn.ModuleList(list(blocks)[:count]))
    try:
        yield [last[each] for each in kinds]
    finally:
        setattr(room, name, blocks)


def kind(policy: Outline, block: nn.Module, number: int) -> tuple[Any, ...]:
    """Blocks of one kind hold the same: shapes, what of them learns, and the sort of attention."""
    sorts = policy.inner.config.get_text_config().to_dict().get("layer_types")
    shapes = tuple((name, each.shape, each.dtype, each.requires_grad) for name, each in block.named_parameters())
    return (sorts[number] if sorts else None, *shapes)
