"""Reward models: the scores that transformers gives, and what cannot judge is refused by name."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from danlu.core.errors import UserError
from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer
from danlu.models.load import ModelConfig, build_scorer
from danlu.models.save import save_weights
from danlu.rewards import rewards
from danlu.rewards.base import Court
from tests.rewards.conftest import answer


@pytest.fixture
def reward_model(tmp_path):
    torch.manual_seed(0)
    model = build_scorer(ModelConfig(path="builtin:tiny-llama"))
    save_weights(model, tmp_path / "judge")
    tiny_tokenizer().save_pretrained(tmp_path / "judge")
    return tmp_path / "judge"


def test_scores_are_those_of_transformers(reward_model, court):
    answers = [answer("x", ids=list(range(9, 9 + count))) for count in (1, 7, 40, 3)]
    found = rewards["model"](path=str(reward_model)).open(court)(answers)
    theirs = AutoModelForSequenceClassification.from_pretrained(reward_model, dtype=torch.float32).eval()
    expected = [theirs(torch.tensor([one.prompt_ids + one.ids])).logits.item() for one in answers]
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(set(found)) == len(found)


def test_words_alone_are_read_in_its_own_tokens(reward_model, court):
    reward = rewards["model"](path=str(reward_model), reads="answer")
    other = tiny_tokenizer()
    other.chat_template = "{{ messages[0]['content'] }}"
    found = reward.open(Court(other, court.device, 64))([answer("one two"), answer("one two", ids=[1]), answer("")])
    theirs = AutoModelForSequenceClassification.from_pretrained(reward_model, dtype=torch.float32).eval()
    ids = tiny_tokenizer()("one two")["input_ids"]
    assert found[:2] == pytest.approx([theirs(torch.tensor([ids])).logits.item()] * 2, rel=1e-5)
    assert torch.isfinite(torch.tensor(found)).all()


def test_another_tokenizer_is_refused(reward_model, court):
    other = tiny_tokenizer()
    other.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(UserError, match="is not the policy's, whose tokens it would read; say reads: answer"):
        rewards["model"](path=str(reward_model)).open(Court(other, court.device, 64))


def test_a_language_model_is_no_judge(tiny, court):
    with pytest.raises(UserError, match="it gives no score; a reward model gives one"):
        rewards["model"](path=str(tiny("llama"))).open(court)


def test_a_model_that_is_not_there(court, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        rewards["model"](path=str(tmp_path / "judge")).open(court)
