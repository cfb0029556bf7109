import threading
from contextlib import closing
from functools import partial

import pytest
import torch

from danlu.core.errors import UserError
from danlu.generate.base import GenerationConfig
from danlu.generate.complete import complete
from danlu.generate.local import Local
from danlu.generate.stream import stream
from danlu.models.adapters.lora import Lora
from danlu.models.builtin.tiny import ARCHITECTURES
from danlu.models.load import load_model
from danlu.samples import Message

SHORT = GenerationConfig(max_tokens=12)
CHATS = [[Message("user", words)] for words in ("hi", "Please explain in one sentence what the capital is.", "读书")]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_greedy_answer_does_not_depend_on_its_neighbours(architecture, tiny):
    model = Local.open(tiny(architecture), dtype=torch.float32)
    together = model.answer(CHATS, SHORT)
    alone = [model.answer([chat], SHORT)[0] for chat in CHATS]
    assert together == alone
    assert all(len(answer.ids) == 12 and answer.finish == "length" for answer in together)


def test_each_row_stops_by_itself(tiny):
    model = load_model(tiny("llama"))
    free = complete(model, [[5, 6, 7], [9]], SHORT, set(), pad=0)
    stop = free[0][3]
    first, second = complete(model, [[5, 6, 7], [9]], SHORT, {stop}, pad=0)
    assert first == free[0][: free[0].index(stop) + 1]
    assert second == (free[1][: free[1].index(stop) + 1] if stop in free[1] else free[1])


def test_the_stop_token_is_no_part_of_the_answer(tiny):
    model = Local.open(tiny("llama"))
    ended, cut = model.completion(7, [70, 71, 2], {2}), model.completion(7, [70, 71], {2})
    assert (ended.ids, ended.finish, ended.num_prompt_tokens) == ([70, 71], "stop", 7)
    assert (cut.ids, cut.finish) == ([70, 71], "length")
    assert ended.text == cut.text


def test_chance_follows_the_seed_and_leaves_the_trainings_alone(tiny):
    model = Local.open(tiny("llama"))
    config = GenerationConfig(max_tokens=12, temperature=1.0, top_k=50, top_p=0.9, seed=3)
    state = torch.get_rng_state()
    once, again = model.answer(CHATS, config), model.answer(CHATS, config)
    assert torch.equal(state, torch.get_rng_state())
    assert once == again
    assert once != model.answer(CHATS, config.model_copy(update={"seed": 4}))
    assert once != model.answer(CHATS, SHORT)


def test_settings_reach_the_choice_of_tokens(tiny):
    model = Local.open(tiny("llama"))
    greedy = model.answer(CHATS, SHORT)
    assert model.answer(CHATS, GenerationConfig(max_tokens=12, temperature=2.0, top_k=1)) == greedy
    assert model.answer(CHATS, GenerationConfig(max_tokens=12, temperature=2.0, top_p=1e-6)) == greedy
    assert model.answer(CHATS, GenerationConfig(max_tokens=12, repetition_penalty=5.0)) != greedy


def test_a_model_in_training_stays_in_training(tiny):
    model = load_model(tiny("llama")).train()
    complete(model, [[5]], SHORT, set(), pad=0)
    assert model.training


@pytest.mark.parametrize("architecture", ["llama", "bloom", "gemma3"])
def test_a_stream_is_the_answer_in_pieces(architecture, tiny):
    model = Local.open(tiny(architecture))
    for chat in CHATS:
        assert "".join(model.stream(chat, SHORT)) == model.answer([chat], SHORT)[0].text


def test_closing_a_stream_stops_the_model(tiny):
    write = partial(complete, load_model(tiny("llama")), [[5, 6]], GenerationConfig(max_tokens=200), set(), 0)
    written = []
    before = threading.active_count()
    with closing(stream(lambda **hooks: written.extend(write(**hooks)))) as tokens:
        next(tokens)
    assert threading.active_count() <= before
    assert 1 <= len(written[0]) < 200


def test_what_breaks_in_the_stream_is_raised_where_it_is_read(tiny):
    with pytest.raises(IndexError):
        list(stream(partial(complete, load_model(tiny("llama")), [[5, 99_999]], SHORT, set(), 0)))


def test_a_chat_longer_than_the_model_reads_is_refused(tiny):
    with pytest.raises(UserError, match="at most 256"):
        Local.open(tiny("llama")).answer([[Message("user", "丹" * 300)]], SHORT)


def test_an_adapter_answers_as_its_model_merged(tiny, tmp_path):
    torch.manual_seed(0)
    wrapped = Lora(rank=4).apply(load_model(tiny("llama")))
    with torch.no_grad():
        for parameter in wrapped.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter) * parameter.requires_grad)
    Lora(rank=4).save(wrapped, tmp_path)
    model = Local.open(tmp_path)
    assert model.answer(CHATS, SHORT) != Local.open(tiny("llama")).answer(CHATS, SHORT)
    assert "".join(model.stream(CHATS[0], SHORT)) == model.answer(CHATS[:1], SHORT)[0].text


def test_smollm2_answers_a_batch(smollm2):
    model = Local.open(smollm2)
    chats = [[Message("user", f"What is the capital of {country}?")] for country in ("France", "Germany")]
    answers = model.answer(chats, GenerationConfig(max_tokens=16))
    assert [answer.finish for answer in answers] == ["stop", "stop"]
    assert "Paris" in answers[0].text
    assert "Berlin" in answers[1].text
