"""The hardware under a run: device, ranks and precision, and the sums over all of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from danlu.core.devices import compute_dtype
from danlu.core.errors import SetupError
from danlu.core.ranks import Ranks, local_rank
from danlu.data.packing import Pack
from danlu.engine.config import EngineConfig
from danlu.engine.heartbeats import Heart
from danlu.engine.parallel.base import reading_together
from danlu.engine.soon import LossNumbers
from danlu.models.adapters.base import Adapter
from danlu.models.chunked_mlp import chunk_mlps
from danlu.models.fused_block import fuse_blocks
from danlu.models.load import ModelConfig, build_model, build_scorer
from danlu.models.policy import Policy
from danlu.models.scorer import Scorer

log = logging.getLogger(__name__)

WORTH_COMPILING = 400_000
"""tokens from which compiling a 135M model on two cores (about 60 s) wins back its time"""


class Engine:
    """Devices, ranks and precision of one process."""

    def __init__(self, config: EngineConfig, heart: Heart | None = None) -> None:
        self.config = config
        self.heart = heart or Heart()
        self.device = device_of(config)
        self.ranks = open_ranks(config)
        self.parallel = config.parallel.among(self.ranks)
        self.teams = self.ranks.teams(self.parallel.context)
        self.dtype = compute_dtype(config.precision, self.device)
        config.optimizer.check(self.device)
        self._spare: Pack | None = None

    @property
    def rank(self) -> int:
        """This process among all."""
        return self.ranks.rank

    @property
    def num_ranks(self) -> int:
        """How many processes train together."""
        return self.ranks.count

    @property
    def in_step(self) -> bool:
        """Whether every process must make as many forwards and backwards as the others."""
        return self.parallel.in_step

    @property
    def waits(self) -> bool:
        """Whether a forward of one process waits for that of another."""
        return self.in_step or self.parallel.context > 1

    def builder(self, model: ModelConfig, adapter: Adapter) -> "ModelBuilder":
        """What an objective asks for its models."""
        return ModelBuilder(self, model, adapter)

    def share(self, packs: Sequence[Pack | None]) -> list[Pack]:
        """This process's packs of a global batch; a stream reads no others."""
        self._spare = next((pack for pack in packs if pack is not None), self._spare)
        own = self.teams.share(packs)
        assert all(pack is not None for pack in own)
        return own  # type: ignore[return-value]

    def filled(self, packs: list[Pack], count: int) -> list[Pack]:
        """A share, and after it a pack that is not learnt from, until there are as many as others have."""
        missing = count - len(packs)
        assert not missing or self._spare is not None, "a stream gave a process nothing, and all others would wait"
        return packs + [self._spare] * missing  # type: ignore[list-item]

    def sum_losses(self, losses: Sequence[LossNumbers]) -> tuple[float, dict[str, float]]:
        """The summed loss, and every metric as its mean, over all packs and ranks."""
        metrics: dict[str, list[float]] = {}
        for loss in losses:
            for name, (total, count) in loss.metrics.items():
                sums = metrics.setdefault(name, [0.0, 0.0])
                sums[0] += total
                sums[1] += count
        names = dict.fromkeys(chain(*self.ranks.gather(list(metrics))))  # a source may be in another rank's packs only
        metrics = {name: metrics.get(name, [0.0, 0.0]) for name in names}
        [total, _], *means = self.sum_over_ranks([[sum(loss.total for loss in losses), 0.0], *metrics.values()])
        return total, {name: a / b for name, (a, b) in zip(metrics, means, strict=True) if b}

    def sum_over_ranks(self, values: list[list[float]]) -> list[list[float]]:
        """Plain numbers, summed over all ranks in float64."""
        if self.num_ranks == 1:
            return values
        numbers = torch.tensor(values, dtype=torch.float64)
        self.ranks.sum([numbers])
        return numbers.tolist()

    def before_dealing(self, policy: Policy) -> None:
        """What must look at whole weights, where they will be dealt out."""
        if self.in_step:
            arrange(self.config, policy, self.device.type, dealt=True)
            if self.config.compile is True:
                log.warning("engine.compile: blocks whose weights are dealt out run as they are")

    def prepare(self, policy: Policy, num_tokens: int) -> None:
        """Memory and speed options, some of which depend on how long the run is."""
        config = self.config
        policy.context = reading_together(self.parallel, policy, self.ranks)
        if self.in_step:
            return
        fused = arrange(config, policy, self.device.type, dealt=policy.context is not None)
        if policy.context is not None:
            return
        worth_it = config.compile == "auto" and policy.packed and num_tokens > WORTH_COMPILING
        if not fused and (config.compile is True or worth_it):  # in fused blocks nothing is left for the compiler
            policy.compile_blocks()


def open_ranks(config: EngineConfig) -> Ranks:
    """Meet the other processes of a run, where a launcher has started several."""
    return Ranks.open(device_of(config), timeout=config.parallel.timeout)


def device_of(config: EngineConfig) -> torch.device:
    """Where this process computes: its own GPU, or the processor."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise SetupError("engine.device: no CUDA device here; say auto or cpu")
    if config.device == "cpu" or not torch.accelerator.is_available():
        return torch.device("cpu")
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    if kind.type != "cuda":
        return kind
    count = torch.cuda.device_count()
    own = 0 if count == 1 else local_rank()  # a cluster may show each process its own GPU alone
    if own >= count:
        raise SetupError(f"process {own} of this machine has no GPU: there are {count}")
    torch.cuda.set_device(own)
    return torch.device("cuda", own)


def arrange(config: EngineConfig, policy: Policy, kind: str, *, dealt: bool = False) -> bool:
    """Let blocks run as they do on a kind of device, which a plan must know too; returns whether one node runs each.

    Those whose weights are dealt out stay as they are: a node would hold weights that are there for a while only.
    """
    width = 0 if config.mlp_chunk is None else policy.inner.config.get_text_config().hidden_size
    tokens = width if config.mlp_chunk == "auto" else config.mlp_chunk
    if kind == "cuda" and policy.packed and not dealt and fuse_blocks(policy.inner, tokens):
        return True
    if tokens is not None and not chunk_mlps(policy.inner, width, tokens):
        log.warning("engine.mlp_chunk: no block of %s has an MLP of its own", type(policy.inner).__name__)
    return False


@dataclass(frozen=True)
class ModelBuilder:
    """Loads, adapts and places the models that an objective asks for."""

    engine: Engine
    model: ModelConfig
    adapter: Adapter

    def policy(self) -> Policy:
        """The model that learns."""
        self._begin()
        model = self.adapter.apply(build_model(self.model, device=self.engine.device))
        return Policy(model.to(self.engine.device)).train()  # type: ignore[arg-type]

    def scorer(self, scale: float = 1.0) -> Scorer:
        """The model that learns to give a number; `scale` is how large its new layer begins."""
        self._begin()
        model = self.adapter.apply(build_scorer(self.model, self.engine.device, scale=scale))
        return Scorer(model.to(self.engine.device)).train()  # type: ignore[arg-type]

    def _begin(self) -> None:
        self.adapter.check(self.engine.device)
        torch.manual_seed(self.engine.config.seed)  # new matrices begin the same in every run
