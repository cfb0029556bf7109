"""Fine-tuning on one GPU: danlu and its peers, the same random model and the same tokens, in turn.

    python benchmarks/gpu_sft.py [--size 8b] [--adapter lora] [--segments 2048] [--ways "danlu,trl,trl checkpointing"]
    python benchmarks/gpu_sft.py --prepare rows.npz --data alpaca.jsonl.zst,sharegpt.jsonl.zst     # anywhere, once
    python benchmarks/gpu_sft.py --data rows.npz                                                   # real rows, packed

Prints tokens/s, trained tokens/s, peak memory, the share of an H100's 989 TFLOP/s that was useful (no recomputation
counted) and the mean loss of each as soon as it is there, then the ratios. Each way is a program of `peers/` in a
process of its own, because some patch what others import; one that fails says why in a few lines and stops nobody. What
a way's other words mean stands in its program. A peer that needs other versions finds them by `--site unsloth=FOLDER`.

TRL needs trl, datasets, dill, multiprocess, liger-kernel and bitsandbytes; Unsloth and LLaMA-Factory what they say.
Weights are random, in the shapes of Llama 3; a peer's model for `--adapter full` is bf16 with bf16 AdamW, where danlu
keeps fp32 masters and states.
"""

from json import dumps
from pathlib import Path

from peers.start import answers_of, starting
from peers.token_file import prepare
from peers.workload import LONGEST

PROGRAMS = {"danlu": "by_danlu", "trl": "by_trl", "unsloth": "by_unsloth", "llama-factory": "by_llama_factory"}
FIXED = "danlu,trl,trl checkpointing,unsloth,unsloth checkpointing,llama-factory"
REAL = "danlu,trl wrapped,trl wrapped checkpointing,trl bfd,trl bfd checkpointing"
APART = ("bfd", "flex", "unsloth")
"""words of ways whose rows do not see each other, as danlu's do not"""


def main() -> None:
    """Each way in turn, then the ratios."""
    asked = starting(__doc__)
    asked.add_argument("--ways", help=f"by commas; {FIXED}, or for real rows {REAL}")
    asked.add_argument("--prepare", type=Path, metavar="OUT", help="only make a file of tokens from --data")
    asked.add_argument("--model", default="builtin:smollm2-135m", help="whose tokenizer and template --prepare takes")
    asked.add_argument("--most", type=int, default=700_000, help="tokens that --prepare keeps")
    given = asked.parse_args()
    if given.prepare:
        file = prepare(given.data.split(","), given.model, given.prepare, most=given.most, longest=LONGEST)
        facts = {"rows": len(file.lengths), "tokens": len(file.ids), "trained": round(float(file.trained.mean()), 3)}
        print(dumps(facts | {"bytes": given.prepare.stat().st_size}))
        return
    found = []
    for way in (given.ways or (REAL if given.data else FIXED)).split(","):
        for answer in answers_of(PROGRAMS[way.split()[0]], way.strip(), given):
            found.append(answer)
            print(dumps(answer), flush=True)
    ratios(found, "trained tokens/s" if given.data else "tokens/s")


def ratios(found: list[dict[str, object]], unit: str) -> None:
    """danlu beside the best peer, and with real rows beside the best that keeps rows apart."""
    ours = [float(one[unit]) for one in found if str(one["way"]).startswith("danlu")]  # type: ignore[arg-type]
    peers = {str(one["way"]): float(one[unit]) for one in found if not str(one["way"]).startswith("danlu")}  # type: ignore[arg-type]
    groups = {"the best peer": peers}
    if unit != "tokens/s":
        groups["the best that keeps rows apart"] = {w: v for w, v in peers.items() if any(a in w for a in APART)}
    for name, group in groups.items():
        if ours and group:
            best = max(group, key=lambda way: group[way])
            print(f"ratio of {unit} to {name} ({best}): {max(ours) / group[best]:.2f}", flush=True)


if __name__ == "__main__":
    main()
