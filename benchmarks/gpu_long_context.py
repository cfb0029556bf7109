"""The longest row that 8B QLoRA (NF4) can learn from on one GPU: danlu and Unsloth, in turn.

    python benchmarks/gpu_long_context.py [--lengths 16384,32768,65536] [--layers 32]
    python benchmarks/gpu_long_context.py --probe 262144 --ways danlu          # one length, really

Each way, in a process of its own, makes one optimiser step on one row of each length; the most that was allocated on
the GPU is printed at once. Two lengths give a line, the third says how straight it is, and the line is followed to the
memory of the card: that is arithmetic and not a run, which --probe is. What waits in the host's memory is followed too.

    danlu            all blocks recomputed, their inputs in the host's memory, MLPs some tokens at a time
    danlu whole      the same with MLPs that take all tokens at once
    unsloth          its "unsloth" checkpointing, which keeps blocks' inputs in the host's memory
    unsloth tiled    the same with its tiled MLP

Weights are random. Unsloth's program says what it needs; --site unsloth=FOLDER says where that is.
"""

from argparse import Namespace
from itertools import pairwise
from typing import Any

from peers.start import answers_of, starting

PROGRAMS = {"danlu": "long_danlu", "unsloth": "long_unsloth"}
WAYS = "danlu,danlu whole,unsloth,unsloth tiled"
KEPT_FREE = 1.5
"""GiB of a card that no tensor gets: CUDA's context, and what lies between tensors"""
HOST_FREE = 8.0
"""GiB of the host's memory that the process itself and others need"""
Answer = dict[str, Any]


def main() -> None:
    """Each way in turn, then where the lines lead."""
    asked = starting(__doc__)
    asked.add_argument("--lengths", default="16384,32768,65536", help="tokens of the rows, by commas")
    asked.add_argument("--probe", type=int, help="one length instead")
    asked.add_argument("--ways", default=WAYS)
    asked.set_defaults(quantizer="nf4")
    given = asked.parse_args()
    lengths = str(given.probe) if given.probe else given.lengths
    longest: dict[str, float] = {}
    for way in (way.strip() for way in given.ways.split(",")):
        found: list[Answer] = []
        for one in answers_of(PROGRAMS[way.split()[0]], way, given, "--lengths", lengths):
            found.append(one)
            print(
                f"{way}: {one['tokens']:,} tokens, {one['peak GiB']:.2f} GiB of {one['card GiB']:.1f} at most, "
                f"{one['host GiB']:.1f} of {one['host has GiB']:.0f} on the host, {one['seconds']:.1f} s, "
                f"loss {one['loss']:.3f}",
                flush=True,
            )
        if len(found) > 1:
            longest[way] = followed(way, found)
    told(longest, given)


def followed(way: str, found: list[Answer]) -> float:
    """Where a way's line meets the memory there is, and how straight the line is."""
    last, slopes = found[-1], [rise(a, b, "peak GiB") for a, b in pairwise(found)]
    host_slope = rise(found[0], last, "host GiB")
    by_card = last["tokens"] + (last["card GiB"] - KEPT_FREE - last["peak GiB"]) / slopes[-1]
    by_host = last["tokens"] + (last["host has GiB"] - HOST_FREE - last["host GiB"]) / host_slope
    each = ", ".join(f"{2**20 * slope:.0f}" for slope in slopes)
    print(
        f"{way}: {each} KiB of the card for each further token (a straight line has one number), "
        f"{2**20 * host_slope:.0f} of the host; followed, not run: the card is full at {by_card:,.0f} tokens, "
        f"the host at {by_host:,.0f}",
        flush=True,
    )
    return by_card


def rise(a: Answer, b: Answer, what: str) -> float:
    """GiB for each further token."""
    return max((b[what] - a[what]) / (b["tokens"] - a["tokens"]), 1e-9)


def told(longest: dict[str, float], given: Namespace) -> None:
    """The ratio."""
    ours = {way: tokens for way, tokens in longest.items() if way.startswith("danlu")}
    for peer in sorted(longest.keys() - ours.keys()):
        for way, tokens in ours.items():
            print(f"{way} / {peer}: {tokens / longest[peer]:.2f} (by the card, {given.size}, followed)", flush=True)


if __name__ == "__main__":
    main()
