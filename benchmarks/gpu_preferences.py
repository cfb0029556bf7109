"""Preferences and rewards on one GPU: Danlu beside TRL's trainers, the same random model and the same texts, in turn.

    python benchmarks/gpu_preferences.py --objective dpo --tokenizer FOLDER --data pairs.jsonl
    python benchmarks/gpu_preferences.py --objective reward --tokenizer FOLDER --data pairs.jsonl
    python benchmarks/gpu_preferences.py --objective grpo --tokenizer FOLDER --data prompts.jsonl --rows 8

Pairs are rows of {prompt, chosen, rejected}, prompts rows of {prompt}. LoRA of rank 16 on all linear layers of a model
of Llama's shape with random weights, which is written to --folder once. Prints rows/s of whole steps (for grpo
answers/s, and how long a step wrote and learned), peak memory and the loss of each way, then the ratio to the best
peer. Words of TRL's ways: `checkpointing`; `two`, `four`, … rows at a time, accumulated; `precomputed` reference;
`continuous` batching.

TRL needs trl, datasets, dill, multiprocess and liger-kernel.
"""

from json import dumps
from pathlib import Path

from peers.start import answers_of, starting

PROGRAMS = {"danlu": "preferences_danlu", "trl": "preferences_trl"}
WAYS = "danlu,trl four,trl sixteen checkpointing"


def main() -> None:
    """Each way in turn, then the ratio."""
    asked = starting(__doc__)
    asked.add_argument("--objective", choices=("dpo", "reward", "grpo"), default="dpo")
    asked.add_argument("--tokenizer", type=Path, required=True, help="a folder that has one")
    asked.add_argument("--rows", type=int, default=16, help="pairs, or prompts, of a step")
    asked.add_argument("--longest", type=int, default=1024, help="tokens of a pair's answer with its prompt")
    asked.add_argument("--group", type=int, default=8, help="answers to each prompt")
    asked.add_argument("--answer-tokens", type=int, default=256, help="of each answer that is written")
    asked.add_argument("--ways", default=WAYS, help="by commas")
    given = asked.parse_args()
    names = ("objective", "tokenizer", "rows", "longest", "group", "answer_tokens")
    more = [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(given, name)))]
    found = []
    for way in given.ways.split(","):
        for answer in answers_of(PROGRAMS[way.split()[0]], way.strip(), given, *more):
            found.append(answer)
            print(dumps(answer), flush=True)
    ours = [answer["rows/s"] for answer in found if answer["way"].startswith("danlu")]
    peers = {answer["way"]: answer["rows/s"] for answer in found if not answer["way"].startswith("danlu")}
    if ours and peers:
        best = max(peers, key=lambda way: peers[way])
        print(f"ratio of rows/s to the best peer ({best}): {max(ours) / peers[best]:.2f}", flush=True)


if __name__ == "__main__":
    main()
