"""cuDNN's attention over segments of any length, where the package nvidia-cudnn-frontend is installed.

Queries, keys and values stay in the buffer of one product, and outputs and gradients are written where the next product
reads them. A plan takes a tenth of a second and more to make, and what it says are bounds: the numbers of segments, of
tokens in the longest and of tokens in all are rounded up so far that a run's packs need a handful.
Shapes: T tokens, H query heads, K key heads, D head size.
"""

import atexit
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from danlu.models.kernels.segment_attention import Segments

cudnn: Any = None
if torch.cuda.is_available():
    with suppress(ImportError):
        cudnn = import_module("cudnn")

log = logging.getLogger(__name__)

Heads = Sequence[Tensor]
SHORTEST = 128
"""tokens: shorter segments share a plan"""
ROOM = 4096
"""tokens: streams that take as many times so many share a plan"""


@dataclass(frozen=True, slots=True)
class Task:
    """What decides a plan. Widths: elements from one token to the next in each buffer."""

    segments: int
    longest: int
    tokens: int
    heads: int
    key_heads: int
    size: int
    dtype: torch.dtype
    qkv_width: int
    out_width: int
    grad_width: int
    scale: float
    window: int | None


class Plan:
    """A compiled graph, its names, and the memory that it works in."""

    def __init__(self, graph: Any, names: Mapping[str, Any]) -> None:
        self.graph, self.names = graph, names
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        graph.check_support()
        graph.build_plans()
        self.workspace_bytes = graph.get_workspace_size()

    def run(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill the outputs among these tensors."""
        device = tensors["q"].device
        workspace = torch.empty(self.workspace_bytes, dtype=torch.uint8, device=device)
        handle = handle_of(device)
        cudnn.set_stream(handle, torch.cuda.current_stream(device).cuda_stream)
        self.graph.execute({self.names[name]: tensor for name, tensor in tensors.items()}, workspace, handle=handle)


@cache
def handle_of(device: torch.device) -> Any:
    """cuDNN's handle for a device."""
    with torch.cuda.device(device):
        return cudnn.create_handle()


def ragged_works(heads: Heads, out: Tensor, segments: Segments, scale: float, window: int | None) -> bool:
    """Whether cuDNN is there and has a plan for this, forwards and back."""
    q, k, v = heads
    if cudnn is None or q.is_meta or not q.stride() == k.stride() == v.stride() or q.stride(1) != q.shape[2]:
        return False
    return has_plans(task_of(q, k, out, out, segments, scale, window))


def ragged_attention(heads: Heads, out: Tensor, segments: Segments, scale: float, window: int | None) -> Tensor:
    """q [T,H,D], k and v [T,K,D] in one buffer -> out [T,H,D], in place; returns logsumexp [T,H] fp32."""
    q, k, v = heads
    task = task_of(q, k, out, out, segments, scale, window)
    stats = torch.empty(len(q), task.heads, dtype=torch.float32, device=q.device)
    given = {"q": q, "k": k, "v": v, "o": out, "stats": stats}
    forward_plan(task).run(given | offsets_of(task, places_of(segments)))
    return stats


def ragged_attention_backward(
    d_out: Tensor,
    heads: Heads,
    out: Tensor,
    stats: Tensor,
    d_heads: Heads,
    segments: Segments,
    scale: float,
    window: int | None,
) -> None:
    """Fill the gradients of q, k and v, `d_heads`, which lie in one buffer as `heads` do."""
    task, places = task_of(heads[0], heads[1], out, d_out, segments, scale, window), places_of(segments)
    given = dict(zip(("q", "k", "v", "dq", "dk", "dv"), (*heads, *d_heads), strict=True))
    given |= {"o": out, "do": d_out, "stats": stats}
    backward_plan(task).run(given | offsets_of(task, places) | {"do_at": places["begins"] * task.grad_width})


@lru_cache(maxsize=256)
def has_plans(task: Task) -> bool:
    """Whether both ways can be planned on this GPU, by this version."""
    try:
        forward_plan(task)
        backward_plan(task)
    except (cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
        log.info("cuDNN has no attention for %s: %s", task, error)
        return False
    return True


def task_of(
    q: Tensor, k: Tensor, out: Tensor, d_out: Tensor, segments: Segments, scale: float, window: int | None
) -> Task:
    """What a plan for these is made for: sizes that hold them, few enough that most packs find a plan that is there."""
    (tokens, heads, size), key_heads = q.shape, k.shape[1]
    longest = max(SHORTEST, 2 * power_of_four(-(-max(segments.lengths) // 2)))
    widths = q.stride(0), out.stride(0), d_out.stride(0)
    count, room = power_of_four(len(segments.lengths)), -(-tokens // ROOM) * ROOM
    return Task(count, longest, room, heads, key_heads, size, q.dtype, *widths, scale, window)


def power_of_four(number: int) -> int:
    """The next one."""
    return 1 << ((number - 1).bit_length() + 1) // 2 * 2


def places_of(segments: Segments) -> dict[str, Tensor]:
    """Lengths and beginnings of the segments, and of empty ones that fill their number up."""
    if segments.places is None:
        lengths = torch.zeros(power_of_four(len(segments.lengths)), dtype=torch.int32)
        lengths[: len(segments.lengths)] = torch.tensor(segments.lengths, dtype=torch.int32)
        begins = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        segments.places = {
            "lengths": lengths.view(-1, 1, 1, 1).to(segments.device, non_blocking=True),
            "begins": begins.view(-1, 1, 1, 1).to(segments.device, non_blocking=True),
        }
    return segments.places


def offsets_of(task: Task, places: dict[str, Tensor]) -> dict[str, Tensor]:
    """Where each segment begins in each buffer, counted in elements."""
    begins, lengths = places["begins"], places["lengths"]
    return {
        "qkv_at": begins * task.qkv_width,
        "o_at": begins * task.out_width,
        "stats_at": begins * task.heads,
        "lengths": lengths,
    }


@lru_cache(maxsize=64)
def forward_plan(task: Task) -> Plan:
    """softmax(q k^T) v."""
    graph, names = begun(task)
    o, stats = graph.sdpa(
        q=names["q"], k=names["k"], v=names["v"], generate_stats=True, **common(task, names)
    )  # fmt: skip
    put(o, task, task.heads, task.out_width, names["o_at"]).set_output(True)
    stats.set_output(True).set_data_type(cudnn.data_type.FLOAT)
    stats.set_dim([task.segments, task.heads, task.longest, 1])
    stats.set_stride([task.longest * task.heads, 1, task.heads, 1]).set_ragged_offset(names["stats_at"])
    return Plan(graph, names | {"o": o, "stats": stats})


@lru_cache(maxsize=64)
def backward_plan(task: Task) -> Plan:
    """Its gradients."""
    graph, names = begun(task)
    names["do_at"] = graph.tensor(
        dim=[task.segments + 1, 1, 1, 1], stride=[1, 1, 1, 1], data_type=cudnn.data_type.INT64, name="do_at"
    )
    for name, width in (("o", task.out_width), ("do", task.grad_width)):
        names[name] = buffer(graph, task, name, task.heads, width, names[f"{name}_at"])
    names["stats"] = graph.tensor(
        dim=[task.segments, task.heads, task.longest, 1],
        stride=[task.longest * task.heads, 1, task.heads, 1],
        data_type=cudnn.data_type.FLOAT,
        name="stats",
    )
    names["stats"].set_ragged_offset(names["stats_at"])
    found = graph.sdpa_backward(
        q=names["q"], k=names["k"], v=names["v"], o=names["o"], dO=names["do"], stats=names["stats"],
        max_total_seq_len_q=task.tokens, max_total_seq_len_kv=task.tokens, **common(task, names),
    )  # fmt: skip
    for name, gradient in zip(("dq", "dk", "dv"), found, strict=True):
        heads = task.heads if name == "dq" else task.key_heads
        put(gradient, task, heads, task.qkv_width, names["qkv_at"]).set_output(True)
        names[name] = gradient
    return Plan(graph, names)


@atexit.register
def forget_plans() -> None:
    """Plans must go before the package that made them, which complains otherwise."""
    for made in (forward_plan, backward_plan, handle_of):
        made.cache_clear()


def begun(task: Task) -> tuple[Any, dict[str, Any]]:
    """A graph with its inputs."""
    kind = cudnn.data_type.BFLOAT16 if task.dtype == torch.bfloat16 else cudnn.data_type.HALF
    wide = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=kind, intermediate_data_type=wide, compute_data_type=wide)
    names: dict[str, Any] = {}
    for name in ("qkv_at", "o_at", "stats_at"):
        names[name] = graph.tensor(
            dim=[task.segments + 1, 1, 1, 1], stride=[1, 1, 1, 1], data_type=cudnn.data_type.INT64, name=name
        )
    names["lengths"] = graph.tensor(
        dim=[task.segments, 1, 1, 1], stride=[1, 1, 1, 1], data_type=cudnn.data_type.INT32, name="lengths"
    )
    for name, heads in (("q", task.heads), ("k", task.key_heads), ("v", task.key_heads)):
        names[name] = buffer(graph, task, name, heads, task.qkv_width, names["qkv_at"])
    return graph, names


def common(task: Task, names: Mapping[str, Any]) -> dict[str, Any]:
    """What both directions are told."""
    return {
        "attn_scale": task.scale,
        "use_padding_mask": True,
        "seq_len_q": names["lengths"],
        "seq_len_kv": names["lengths"],
        "diagonal_alignment": cudnn.diagonal_alignment.TOP_LEFT,
        "diagonal_band_right_bound": 0,
        "diagonal_band_left_bound": task.window,
    }


def buffer(graph: Any, task: Task, name: str, heads: int, width: int, at: Any) -> Any:
    """A tensor whose tokens lie `width` elements apart."""
    tensor = graph.tensor(
        dim=[task.segments, heads, task.longest, task.size],
        stride=[task.longest * width, task.size, width, 1],
        name=name,
    )
    tensor.set_ragged_offset(at)
    return tensor


def put(tensor: Any, task: Task, heads: int, width: int, at: Any) -> Any:
    """The same for an output."""
    tensor.set_dim([task.segments, heads, task.longest, task.size])
    tensor.set_stride([task.longest * width, task.size, width, 1])
    return tensor.set_ragged_offset(at)
