"""A language model seen through packs: log-probabilities of each token, without ever holding a batch's logits."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from danlu.data.packing import IGNORED, Pack
from danlu.models.adapters.base import Adapter
from danlu.models.attention import PACKED
from danlu.models.beginning import Beginning, without_adapter
from danlu.models.blocks import blocks_of
from danlu.models.compiled import compile_blocks
from danlu.models.context import Context
from danlu.models.dealt import let_go
from danlu.models.fused import fuse_lora
from danlu.models.heads import Head, head_of
from danlu.models.kernels.linear_logprob import linear_logprob
from danlu.models.kernels.segment_attention import Segments
from danlu.models.kernels.shared_prefix import shared_in

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Likelihood:
    """What a model thinks of a pack's targets; all [T] fp32, zero where nothing is trained.

    logps: log-probability of the target. normalizers: logsumexp of the logits. averages: mean log-probability over
    the vocabulary (for label smoothing).
    """

    logps: Tensor
    normalizers: Tensor
    averages: Tensor


class Policy(nn.Module):
    """A causal language model, with or without an adapter, that reads packs.

    `packed` says whether its attention can keep segments apart in one stream. It is found out by trying: models whose
    attention cannot (ALiBi, recurrent state) read their segments one after another, which is slower and as right.
    """

    recomputation: ClassVar[dict[str, Any]] = {"use_reentrant": False}
    """how torch recomputes a block in the backward pass"""

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        super().__init__()
        self.model = model
        self.head = self._find_head()
        self._beginning: Beginning | None = None
        self.gathered: Callable[[], AbstractContextManager[None]] = nullcontext
        """inside, this process has all weights, where they are dealt out among several"""
        self.computes_on: torch.device | None = None
        """where that is, if its weights wait elsewhere"""
        self.context: Context | None = None
        """with whom it reads each pack, where several do"""
        fuse_lora(model)
        self.packed = False
        self.packed = self._keeps_segments_apart()

    @property
    def inner(self) -> PreTrainedModel:
        """The transformers model, inside its adapter if it has one."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model  # type: ignore[return-value]

    @property
    def backbone(self) -> nn.Module:
        """The model without its output layer."""
        return self.inner.base_model

    def body(self, **inputs: Any) -> Tensor:
        """[1,T,H] last hidden states, by transformers' contract; all that runs the blocks passes through here."""
        return self.backbone(**inputs).last_hidden_state

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.computes_on or self.inner.device

    def hidden(self, pack: Pack, *, embedding_noise: float = 0.0) -> Tensor:
        """[T,H] last hidden states of a pack."""
        with self._noise(pack, embedding_noise):
            if not self.packed:
                spans = zip(pack.input_ids.split(pack.lengths), pack.positions.split(pack.lengths), strict=True)
                return torch.cat([self._stream(ids, positions) for ids, positions in spans])
            noisy = embedding_noise and self.training  # each answer's beginning has a noise of its own
            shared = None if noisy else shared_in(pack)
            segments = Segments(pack.lengths, pack.input_ids.device, shared=shared)
            if shared is None:
                return self._spread(pack.input_ids, pack.positions, segments)
            ids, positions = (x.index_select(0, shared.firsts_U) for x in (pack.input_ids, pack.positions))
            return shared.whole(self._spread(ids, positions, segments))

    def likelihood(self, pack: Pack, *, embedding_noise: float = 0.0, temperature: float = 1.0) -> Likelihood:
        """Log-probabilities of the pack's targets."""
        return self.likelihood_of(self.hidden(pack, embedding_noise=embedding_noise), pack, temperature=temperature)

    def likelihood_of(self, hidden_TH: Tensor, pack: Pack, *, temperature: float = 1.0) -> Likelihood:
        """The same where hidden states are known; those of untrained positions never meet the vocabulary."""
        trained = (pack.on_host.targets != IGNORED).nonzero()[:, 0].to(hidden_TH.device, non_blocking=True)
        values = linear_logprob(
            hidden_TH[trained], self.head.weight, self.head.bias, pack.targets[trained], self.head.shape.at(temperature)
        )
        zeros = hidden_TH.new_zeros(pack.num_tokens, dtype=torch.float32)
        return Likelihood(*(zeros.index_copy(0, trained, value) for value in values))

    def logprobs(self, pack: Pack, *, temperature: float = 1.0) -> Tensor:
        """[T] fp32 log-probability of each target, zero where nothing is trained."""
        return self.likelihood(pack, temperature=temperature).logps

    def logits(self, pack: Pack) -> Tensor:
        """[T,V]; for looking at small packs."""
        return self.head.logits(self.hidden(pack))

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Inside, the model computes without its adapter."""
        with without_adapter(self.model):
            let_go(self)
            yield
            let_go(self)  # what is gathered again learns again

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Inside, answers are written: nothing is dropped out, or compiled for every length of a cache anew."""
        training = self.training
        self.eval()
        try:
            with torch.compiler.set_stance("force_eager"), self.gathered():
                yield
        finally:
            self.train(training)

    @contextmanager
    def own_attention(self) -> Iterator[PreTrainedModel]:
        """Inside, the model is as transformers knows it: the attention of packs knows no padding."""
        if self.packed:
            self.inner.set_attn_implementation(self._own_attention)
        try:
            yield self.inner
        finally:
            if self.packed:
                self.inner.set_attn_implementation(PACKED)

    def remember(self) -> None:
        """Keep what learns as it is now."""
        self._beginning = Beginning(self.model)

    @property
    def remembers(self) -> bool:
        """Whether it was told to remember."""
        return self._beginning is not None

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Inside, the model is what it was when it was told to remember; see `Beginning`."""
        assert self._beginning is not None, "a policy shows its beginning only if it was told to remember it"
        with self._beginning.shown():
            let_go(self)
            yield
        let_go(self)

    def save(self, adapter: Adapter, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write what was learned, as the adapter does; `state` holds newer values by the model's parameter names."""
        adapter.save(self.model, folder, state)

    def recompute(self, num_blocks: int | None) -> None:
        """Gradient checkpointing: recompute the first `num_blocks` blocks (None: all) in the backward pass."""
        self.inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs=self.recomputation)
        _, blocks = blocks_of(self.inner)
        for block in list(blocks)[len(blocks) if num_blocks is None else num_blocks :]:
            block.gradient_checkpointing = False  # type: ignore[assignment]

    def compile_blocks(self) -> None:
        """Let torch's compiler fuse the element-wise work inside each block; lengths of packs may vary."""
        compile_blocks(blocks_of(self.inner)[1])

    def _spread(self, ids: Tensor, positions: Tensor, segments: Segments) -> Tensor:
        """The same by all processes that share a stream."""
        if self.context is None:
            return self._stream(ids, positions, segments)
        segments.spread = spread = self.context.spread(len(ids))
        return spread.together(self._stream(spread.own(ids), spread.own(positions), segments))

    def _stream(self, ids: Tensor, positions: Tensor, segments: Segments | None = None) -> Tensor:
        known = {"position_ids": positions[None], "segments": segments} if segments is not None else {}
        return self.body(input_ids=ids[None], use_cache=False, **known)[0]

    def _find_head(self) -> Head:
        return head_of(self.inner)

    def _read(self, hidden_TH: Tensor) -> Tensor:
        """What is compared to find out whether segments are kept apart."""
        return self.head.logits(hidden_TH)

    def _own(self, ids: Tensor) -> Tensor:
        """The same of one segment, by the model's own forward."""
        return self.inner(input_ids=ids[None]).logits[0]

    @torch.no_grad()
    def _keeps_segments_apart(self) -> bool:
        """Whether a packed forward of two short segments equals the model's own forward of each."""
        training = self.inner.training
        self.eval()
        self._own_attention = self.inner.config._attn_implementation or "eager"
        vocabulary = self.inner.get_input_embeddings().weight.shape[0]  # type: ignore[union-attr]
        ids = (vocabulary // 3 + 97 * torch.arange(16, device=self.device)) % vocabulary  # special tokens upset bf16
        expected = torch.cat([self._own(part) for part in ids.split([7, 9])]).float()
        if type(self.inner)._can_set_attn_implementation():
            self.inner.set_attn_implementation(PACKED)
        positions = torch.cat([torch.arange(7), torch.arange(9)]).to(self.device)
        segments = Segments([7, 9], self.device)
        try:
            found = self._read(self._stream(ids, positions, segments)).float()
            # fresh weights hardly look around, so that numbers alone would not tell who reads foreign segments
            apart = (
                self._near(found, expected) and segments.uses >= self.inner.config.get_text_config().num_hidden_layers
            )
        except (TypeError, ValueError, RuntimeError):
            apart = False  # the architecture takes no segments, or not through its attention
        if not apart:
            self.inner.set_attn_implementation(self._own_attention)
            kind = type(self.inner).__name__
            parts = zip(ids.split([7, 9]), positions.split([7, 9]), strict=True)
            found = self._read(torch.cat([self._stream(*part) for part in parts])).float()
            assert self._near(found, expected), f"cannot reproduce {kind}'s numbers"
            log.warning("%s cannot keep packed segments apart; they are read one after another", kind)
        self.train(training)
        return apart

    def _near(self, found: Tensor, expected: Tensor) -> bool:
        """bf16 moves single positions by a third of their length, most by 1 %; reading a foreign segment moves all."""
        error = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
        bound = 1e-3 if self.inner.dtype == torch.float32 else 0.1
        return bool(error[:7].median() <= bound and error[7:].median() <= bound)

    @contextmanager
    def _noise(self, pack: Pack, alpha: float) -> Iterator[None]:
        """NEFTune: uniform noise of size alpha / sqrt(L * H) on the embeddings: https://arxiv.org/abs/2310.05914"""
        if not (alpha and self.training):
            yield
            return

        def add(module: nn.Module, given: tuple[Tensor, ...], embedded: Tensor) -> Tensor:
            T, H = embedded.shape[-2:]
            lengths = torch.tensor(pack.lengths if self.packed else [T], device=embedded.device)
            L = lengths.repeat_interleave(lengths)[:, None]  # of each token's segment
            if self.context is not None:
                L = self.context.spread(len(L)).own(L).clamp(min=1)
            noise = torch.empty_like(embedded).uniform_(-1, 1)
            return embedded + noise * (alpha / (L * H).sqrt()).to(embedded.dtype)

        handle = self.inner.get_input_embeddings().register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()
