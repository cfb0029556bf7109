"""Bytes that live during a computation without data: tensors on torch's meta device, made and freed."""

import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
PRETENDED = torch.device("cuda", 99)
"""no machine has so many, so nothing that is remembered by device can meet a real one"""
IS_CUDA: Any = torch.Tensor.is_cuda.__get__  # type: ignore[attr-defined]
DEVICE: Any = torch.Tensor.device.__get__  # type: ignore[attr-defined]
NUMBER: Any = torch.Tensor.get_device
PIN: Any = torch.Tensor.pin_memory
aten = torch.ops.aten
attend = torch.nn.functional.scaled_dot_product_attention


class Live(TorchDispatchMode):
    """Inside, `now` is what the tensors made here hold, `peak` the most since it was last set. `known` do not count.

    Values are answered as they cost most: every place of a mask is set, no flag is.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._alive: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if args and isinstance(args[0], Tensor) and args[0].is_meta:
            if function is aten._local_scalar_dense.default:
                return False if args[0].dtype == torch.bool else 1
            if function is aten.nonzero.default:
                return self._count(torch.empty(args[0].numel(), args[0].ndim, dtype=torch.long, device=META))
            if function is aten._grouped_mm.default:
                return self._count(grouped_product(*args, **(kwargs or {})))
        return self._count(function(*args, **(kwargs or {})))

    def _count(self, made: Any) -> Any:
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self._watch(tensor.untyped_storage())
        return made

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive or key in self._known:
            return
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone(_: object) -> None:
            self.now -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, gone), size

    def beyond(self, known: Iterable[Tensor]) -> int:
        """What is held by tensors that were made here and share no memory with those that are known."""
        own = {tensor.untyped_storage()._cdata for tensor in known}
        return sum(size for key, (_, size) in self._alive.items() if key not in own)


class AsIfOn(TorchFunctionMode):
    """Meta tensors take the paths of a device: who asks hears that they are on a GPU, and attention is fused."""

    def __init__(self, kind: str, capability: tuple[int, int] = (8, 0)) -> None:
        super().__init__()
        self.gpu, self.capability = kind == "cuda", capability
        self._patches = ExitStack()

    def __enter__(self) -> "AsIfOn":
        if self.gpu:
            known = torch.cuda.get_device_capability
            told = partial(capability_of, known, self.capability)
            self._patches.enter_context(replaced(torch.cuda, "get_device_capability", told))
        if self.gpu and "triton.runtime.jit" in sys.modules:  # where nobody has imported it, nobody launches a kernel
            kernels: Any = sys.modules["triton.runtime.jit"].KernelInterface
            self._patches.enter_context(replaced(kernels, "__getitem__", launch_without_data(kernels.__getitem__)))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is attend and args[0].is_meta and is_fused(*args, **kwargs):
            return fused_attention(*args, **kwargs)
        if not self.gpu:
            return function(*args, **kwargs)
        if function == IS_CUDA:
            return args[0].is_meta or function(*args)
        if function == DEVICE:
            return PRETENDED if args[0].is_meta else function(*args)
        if function == NUMBER and args[0].is_meta:
            return 0  # whose random state torch keeps for a block that it will recompute
        if function == PIN:
            return args[0]  # there may be no GPU to pin memory for
        return function(*(real(each) for each in args), **{key: real(each) for key, each in kwargs.items()})


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another attribute for a while."""
    own = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, own)


def capability_of(known: Any, pretended: tuple[int, int], device: Any = None) -> tuple[int, int]:
    """CUDA's capability of a device, also of the one that is not there."""
    return pretended if device == PRETENDED else known(device)


def launch_without_data(launch: Any) -> Any:
    """Triton's `kernel[grid]`, which does nothing with tensors that have no data: a kernel writes, it makes nothing."""

    def choose(kernel: Any, grid: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            empty = any(isinstance(each, Tensor) and each.is_meta for each in (*args, *kwargs.values()))
            return None if empty else launch(kernel, grid)(*args, **kwargs)

        return run

    return choose


def real(value: Any) -> Any:
    """A device as torch may have it here."""
    return META if isinstance(value, torch.device) and value.type == "cuda" else value


def grouped_product(a: Tensor, b: Tensor, offs: Tensor | None = None, **kwargs: Any) -> Tensor:
    """The output of torch's product by groups, which without data knows bf16 only."""
    if a.ndim == 2 and b.ndim == 2:
        assert offs is not None
        return a.new_empty(len(offs), a.shape[0], b.shape[1])
    return a.new_empty(*a.shape[:-1], b.shape[-1])


def is_fused(q: Tensor, k: Tensor, *rest: Any, enable_gqa: bool = False, **kwargs: Any) -> bool:
    """Whether torch has a kernel that keeps no scores: not where keys are broadcast to several heads."""
    return q.ndim == 4 and (enable_gqa or q.shape[1] == k.shape[1])


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What torch's flash kernels keep: q, k, v, the output and a number for each row; never the scores."""
    kernel = aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(q, k, v, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
