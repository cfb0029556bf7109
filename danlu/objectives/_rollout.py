"""Answers to the prompts of a step with what they are worth, and what is told of them.

N: prompts of a step, G: answers to each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from danlu.generate.writers.base import Draft
from danlu.objectives._answers import ADVANTAGES, Ask, Row
from danlu.rewards.base import Answer


@dataclass(slots=True)
class Rollout:
    """Answers in the order of their prompts, G to each; what they are worth in all, and by each judge.

    `drafts` are the answers as the writer gave them. `seconds` of writing and judging. `told`: how far the writer's
    weights are from the policy's, where they are others.
    """

    asks: list[Ask]
    answers: list[Answer]
    rewards_NG: Tensor
    parts: dict[str, list[float]]
    drafts: list[Draft]
    seconds: dict[str, float]
    told: dict[str, float] = field(default_factory=dict)


def facts_of(rollout: Rollout) -> dict[str, float]:
    """What is told of a step's answers."""
    rewards_NG, answers = rollout.rewards_NG, rollout.answers
    alike = (rewards_NG == rewards_NG[:, :1]).all(dim=1)
    compared = {"alike": alike.double().mean().item()} if rewards_NG.shape[1] > 1 else {}
    return {
        "reward": rewards_NG.mean().item(),
        "reward_std": rewards_NG.std(correction=0).item(),
        **{f"reward/{name}": sum(part) / len(part) for name, part in rollout.parts.items()},
        **compared,
        "answer_tokens": sum(len(answer.ids) for answer in answers) / len(answers),
        "cut_off": sum(answer.finish == "length" for answer in answers) / len(answers),
    }


def waited_for(rollout: Rollout) -> dict[str, float]:
    """Where the time went before the update: seconds, and the answers' tokens a second of writing alone."""
    written = sum(len(answer.ids) for answer in rollout.answers)
    speed = written / max(rollout.seconds["writing"], 1e-9)
    return {f"{name}_seconds": value for name, value in rollout.seconds.items()} | {"writing_tokens_per_second": speed}


def samples_of(rollout: Rollout, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each answer for people to read."""
    rewards = rollout.rewards_NG.flatten().tolist()
    return [
        {
            "where": answer.where,
            "prompt": answer.prompt,
            "answer": answer.text,
            "expected": answer.expected,
            "finish": answer.finish,
            "tokens": len(answer.ids),
            "reward": reward,
            "rewards": {name: part[number] for name, part in rollout.parts.items()},
            "advantage": rows[number].told[ADVANTAGES][0],
        }
        for number, (answer, reward) in enumerate(zip(rollout.answers, rewards, strict=True))
    ]
