"""Answers in rows of one cache: rows are used again, and what a row held before is not seen."""

import pytest
import torch

from danlu.generate.base import GenerationConfig
from danlu.generate.complete import complete, until_stop
from danlu.generate.rows import READ, packed
from danlu.generate.slots import Writing, in_rows, written
from danlu.models.adapters.lora import Lora
from danlu.models.load import ModelConfig, build_model
from danlu.models.policy import Policy

PROMPTS = [[5, 6, 7, 8], list(range(9, 40)), [3], [20, 21], [40, 41, 42]]
NAMES = ["llama", "qwen3", "gemma2", "gemma3", "gpt2", "moe"]


def plain(name="llama", device="cpu", dtype=torch.float32):
    torch.manual_seed(0)
    return build_model(ModelConfig(path=f"builtin:tiny-{name}"), dtype).to(device).eval()


def alone(model, config, stops):
    return [complete(model, [prompt], config, stops, 0)[0] for prompt in PROMPTS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at_once", [1, 2, 7])
def test_a_row_is_used_again_and_its_next_answer_sees_nothing_of_the_last(name, at_once):
    config = GenerationConfig(max_tokens=9)
    stops = {ids[place] for place, ids in enumerate(alone(plain(name), config, set()))}  # answers end at all lengths
    expected = alone(plain(name), config, stops)
    assert len({len(ids) for ids in expected}) > 1
    policy = Policy(plain(name))
    assert in_rows(policy)
    found = written(policy, PROMPTS, 2, config, stops, at_once)
    assert [until_stop(ids, stops) for ids in found] == [ids for ids in expected for _ in range(2)]


@pytest.mark.parametrize("name", ["bloom", "falcon"])
def test_an_architecture_that_cannot_is_found_out(name):
    assert not in_rows(Policy(plain(name)))


def test_a_model_that_takes_no_such_cache_is_found_out(monkeypatch):
    policy = Policy(plain())
    monkeypatch.setattr("danlu.generate.rows.Rows.update", lambda *given, **named: (_ for _ in ()).throw(TypeError))
    assert not in_rows(policy)
    assert in_rows(policy) is False  # and it is not tried again


def test_a_model_that_gives_other_numbers_is_found_out(monkeypatch):
    monkeypatch.setattr("danlu.generate.rows.Rows.begin", lambda *given: None)
    assert not in_rows(Policy(plain()))


def test_rows_without_an_answer_run_on_beside_a_long_one():
    """However long the others take, a row that nobody looks at writes into nobody's memory."""
    config, policy = GenerationConfig(max_tokens=40), Policy(plain())
    [longest, *_] = written(policy, PROMPTS[:1], 1, config, set(), 1)
    stop = next(ids[0] for ids in alone(plain(), config, set()) if ids[0] not in longest)
    found = written(policy, [PROMPTS[0], *PROMPTS], 1, config, {stop}, 3)
    assert found[0] == found[1] == longest


def test_prompts_are_read_in_packs_of_bounded_size():
    prompts = [[1] * length for length in (READ, 5, READ - 4, 3, 2 * READ, 1)]
    packs = list(packed(prompts))
    assert [prompt for pack in packs for prompt in pack] == prompts
    assert all(sum(map(len, pack)) <= READ or len(pack) == 1 for pack in packs)


def test_no_answer_ends_before_it_may():
    config = GenerationConfig(max_tokens=9)
    stops = {ids[1] for ids in alone(plain(), config, set())}
    for least in (0, 4):
        config = GenerationConfig(max_tokens=9, min_tokens=least)
        found = [until_stop(ids, stops) for ids in written(Policy(plain()), PROMPTS, 1, config, stops, 3)]
        assert found == alone(plain(), config, stops)
        assert (min(len(ids) for ids in found) > 4) == (least == 4)


@pytest.mark.parametrize(("setting", "value"), [("top_k", 3), ("top_p", 0.5)])
def test_only_the_likeliest_are_drawn(setting, value):
    policy = Policy(plain())
    config = GenerationConfig(max_tokens=1, temperature=1.0, **{setting: value})
    logits = plain()(torch.tensor([PROMPTS[0]])).logits[0, -1]
    likely = logits.softmax(-1).sort(descending=True)
    few = 3 if setting == "top_k" else int((likely.values.cumsum(-1) < value).sum()) + 1
    torch.manual_seed(0)
    drawn = {ids[0] for ids in written(policy, [PROMPTS[0]], 2000, config, set(), 2000)}
    assert drawn == set(likely.indices[:few].tolist())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_a_captured_step_writes_what_the_model_would(name):
    config = GenerationConfig(max_tokens=20)
    model = Lora(rank=4).apply(plain(name, "cuda"))
    policy = Policy(model)
    stops = {policy.inner.generation_config.eos_token_id}  # where transformers' generate stops in any case
    for number in range(2):  # weights that learn change in place; the next launch reads them
        found = [until_stop(ids, stops) for ids in written(policy.eval(), PROMPTS, 2, config, stops, 4)]
        with policy.own_attention() as own:
            assert found[::2] == found[1::2] == alone(own, config, stops), number
        for name_, parameter in model.named_parameters():
            if "lora_B" in name_:
                torch.nn.init.normal_(parameter, std=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_draws_anew_each_time_and_the_same_by_the_same_seed():
    config, policy = GenerationConfig(max_tokens=12, temperature=1.0), Policy(plain(device="cuda")).eval()
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(written(policy, PROMPTS, 3, config, set(), 8))
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({tuple(ids) for ids in drawn[0]}) == len(drawn[0])


def test_rows_that_have_ended_are_left_out_on_a_processor(monkeypatch):
    policy, config = Policy(plain()), GenerationConfig(max_tokens=9)
    stops = {ids[place] for place, ids in enumerate(alone(plain(), config, set()))}
    widths, logits = [], Writing.logits
    monkeypatch.setattr(Writing, "logits", lambda self: widths.append(len(self.new_B)) or logits(self))
    written(policy, PROMPTS, 1, config, stops, 5)
    assert widths[0] == 5
    assert widths[-1] < 5
