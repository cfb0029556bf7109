"""Answers in groups: what each prompt alone would get, by chance as likely as the model says, over a shared prompt."""

import pytest
import torch

from danlu.data.packing import Pack
from danlu.generate.base import GenerationConfig
from danlu.generate.complete import complete
from danlu.generate.groups import groups
from danlu.models.load import ModelConfig, build_model
from danlu.models.policy import Policy

PROMPTS = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [3], [20, 21]]
GREEDY = GenerationConfig(max_tokens=6)


def plain(name: str = "llama"):
    return build_model(ModelConfig(path=f"builtin:tiny-{name}"), torch.float32).eval()


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "bloom", "falcon", "moe"])
def test_each_answer_of_a_policy_is_what_the_prompt_alone_would_get(name):
    """Also where prompts of other lengths stand beside it, which the attention of packs would not mask."""
    policy = Policy(plain(name)).train()
    found = groups(policy, PROMPTS, 2, GREEDY, set(), at_once=6)
    assert policy.training
    model = plain(name)
    alone = [complete(model, [prompt], GREEDY, set(), 0)[0] for prompt in PROMPTS]
    assert [[draft.ids for draft in group] for group in found] == [[ids, ids] for ids in alone]


def test_a_policy_that_has_written_reads_packs_as_before():
    policy = Policy(plain())
    pack = Pack.of([(torch.arange(5, 5 + n).numpy(), (torch.arange(n) > 2).numpy()) for n in (9, 4)])
    before = policy.logprobs(pack)
    groups(policy, PROMPTS, 2, GREEDY, set(), at_once=8)
    assert torch.equal(policy.logprobs(pack), before)


def test_an_answer_ends_with_its_stop_token_or_at_the_limit():
    [[first, *_]] = groups(Policy(plain()), PROMPTS[:1], 2, GREEDY, set(), at_once=2)
    assert (len(first.ids), first.finish) == (6, "length")
    stop = first.ids[1]
    [[stopped, again]] = groups(Policy(plain()), PROMPTS[:1], 2, GREEDY, {stop}, at_once=2)
    assert stopped == again
    assert (stopped.ids, stopped.finish) == (first.ids[:2], "stop")


def test_the_same_seed_draws_the_same_and_answers_of_a_group_differ():
    config = GenerationConfig(max_tokens=5, temperature=1.0)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(
            [[draft.ids for draft in group] for group in groups(Policy(plain()), PROMPTS, 3, config, set(), at_once=4)]
        )
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len({tuple(ids) for ids in group}) == 3 for group in drawn[0])


def test_tokens_are_drawn_as_often_as_the_temperature_makes_them_likely():
    model = plain()
    policy = Policy(plain())
    config = GenerationConfig(max_tokens=1, temperature=0.25)
    torch.manual_seed(0)
    [group] = groups(policy, [PROMPTS[0]], 4000, config, set(), at_once=4000)
    counts = torch.bincount(torch.tensor([draft.ids[0] for draft in group]), minlength=model.config.vocab_size)
    expected = (model(torch.tensor([PROMPTS[0]])).logits[0, -1] / 0.25).softmax(-1)
    assert (counts / 4000 - expected).abs().max() < 0.02


def test_log_probabilities_are_those_of_the_temperature():
    for name in ("llama", "gemma2"):  # gemma2 caps its logits first
        policy = Policy(plain(name))
        ids = torch.tensor([5, 6, 7, 8, 9])
        pack = Pack.of([(ids.numpy(), (torch.arange(5) > 1).numpy())])
        logits = policy.inner(ids[None]).logits[0, 1:-1] / 0.5
        expected = logits.log_softmax(-1).gather(-1, ids[2:, None])[:, 0]
        torch.testing.assert_close(policy.logprobs(pack, temperature=0.5)[1:4], expected, rtol=1e-4, atol=1e-5)
