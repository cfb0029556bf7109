"""The loss of a pack is what transformers' logits say about exactly the words that should be learnt."""

import json
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from danlu.data.config import DataConfig
from danlu.data.packing import Pack
from danlu.data.pipeline import load_data
from danlu.models.adapters.full import Full
from danlu.models.load import ModelConfig, build_model
from danlu.models.policy import Policy
from danlu.objectives import objectives
from danlu.objectives.pretrain import Pretrain
from danlu.objectives.sft import SFT
from danlu.tokens.tokenizer import load_tokenizer

CHATS = [
    [("user", "one"), ("assistant", "two three")],
    [("system", "be short"), ("user", "four"), ("assistant", "five"), ("user", "six seven"), ("assistant", "eight")],
    [("user", "nine " * 9), ("assistant", "ten")],
]


@pytest.fixture(scope="module")
def folder(tiny):
    return tiny("llama")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(Full().apply(build_model(ModelConfig(path="builtin:tiny-llama"), torch.float32)))


@pytest.fixture
def packed(folder, tmp_path):
    """`packed(objective, {source: rows})`: all rows in one pack."""

    def pack(objective: Pretrain, sources: dict[str, list], **settings) -> Pack:
        for name, rows in sources.items():
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = DataConfig(
            sources={name: str(tmp_path / f"{name}.jsonl") for name in sources},
            cache=tmp_path / "cache",
            workers=1,
            shuffle=False,
            **{"template": "chatml", **settings},
        )
        data = load_data(config, load_tokenizer(folder), objective.learns_from, seed=0)
        [whole] = data.train.packs(100_000)
        return whole

    return pack


def messages(chat: list[tuple[str, str]]) -> dict[str, list]:
    return {"messages": [{"role": role, "content": content} for role, content in chat]}


def chatml_ids_and_labels(folder, chat: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """ChatML written by hand, turn after turn; labels are the assistant's words and its end mark."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if chat[0][0] != "system":
        chat = [("system", "You are a helpful assistant."), *chat]
    ids: list[int] = []
    labels: list[int] = []
    for role, content in chat:
        head, body, end = (
            tokenizer.encode(text, add_special_tokens=False)
            for text in (f"<|im_start|>{role}\n", f"{content}<|im_end|>", "\n")
        )
        ids += head + body + end
        labels += [-100] * len(head) + (body if role == "assistant" else [-100] * len(body)) + [-100] * len(end)
    return torch.tensor(ids), torch.tensor(labels)


def transformers_loss(folder, rows: list[tuple[Tensor, Tensor]], **settings) -> tuple[Tensor, int]:
    """Summed float64 cross-entropy of each row alone, and how many tokens it is over."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for ids, labels in rows:
        logits = model(input_ids=ids[None]).logits[0]
        total = total + cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum", **settings)
        count += int((labels[1:] != -100).sum())
    return total.detach(), count


def test_sft_learns_the_assistants_words_and_no_others(policy, packed, folder):
    objective = SFT()
    pack = packed(objective, {"chats": [messages(chat) for chat in CHATS]})
    loss = objective.loss({"policy": policy}, pack)
    expected, count = transformers_loss(folder, [chatml_ids_and_labels(folder, chat) for chat in CHATS])
    assert loss.count == count
    torch.testing.assert_close(loss.total.double(), expected, rtol=1e-5, atol=1e-5)


def test_pretraining_learns_every_token_of_a_text_and_its_end(policy, packed, folder):
    objective = Pretrain()
    texts = ["one two three", "four five six seven eight", "nine"]
    pack = packed(objective, {"texts": [{"text": text} for text in texts]})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [torch.tensor([*tokenizer.encode(text), tokenizer.eos_token_id]) for text in texts]
    assert pack.input_ids.tolist() == torch.cat(rows).tolist()
    loss = objective.loss({"policy": policy}, pack)
    expected, count = transformers_loss(folder, [(row, row) for row in rows])
    assert loss.count == count
    torch.testing.assert_close(loss.total.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["sft", "pretrain"])
def test_smoothed_labels_are_torchs(policy, packed, folder, name):
    objective = objectives[name](label_smoothing=0.2)
    rows = [chatml_ids_and_labels(folder, chat) for chat in CHATS]
    pack = packed(objective, {"chats": [messages(chat) for chat in CHATS]})
    found = objective.loss({"policy": policy}, pack)
    expected, _ = transformers_loss(folder, rows, label_smoothing=0.2)
    torch.testing.assert_close(found.total.double(), expected, rtol=1e-5, atol=1e-5)


def test_z_loss_is_the_squared_log_normaliser_of_each_trained_token(policy, packed):
    pack = packed(SFT(), {"chats": [messages(chat) for chat in CHATS]})
    plain = SFT().loss({"policy": policy}, pack).total
    found = SFT(z_loss=0.01).loss({"policy": policy}, pack).total
    z = policy.logits(pack)[pack.targets >= 0].double().exp().sum(-1).log()
    torch.testing.assert_close((found - plain).double(), 0.01 * (z**2).sum(), rtol=1e-4, atol=1e-4)


def test_weights_count_targets_more_or_less(policy, packed):
    pack = packed(SFT(), {"chats": [messages(chat) for chat in CHATS]})
    plain = SFT().loss({"policy": policy}, pack)
    pack.weights = pack.weights * 3
    heavy = SFT().loss({"policy": policy}, pack)
    torch.testing.assert_close(heavy.total, 3 * plain.total)
    assert heavy.count == 3 * plain.count


def test_each_source_has_its_own_sum(policy, packed, folder):
    first, second = CHATS[:1], CHATS[1:]
    pack = packed(SFT(), {"first": [messages(c) for c in first], "second": [messages(c) for c in second]})
    loss = SFT(label_smoothing=0.3, z_loss=0.1).loss({"policy": policy}, pack)
    assert list(loss.metrics) == ["loss/first", "loss/second"]
    for name, chats in (("first", first), ("second", second)):
        expected, count = transformers_loss(folder, [chatml_ids_and_labels(folder, chat) for chat in chats])
        total, found = loss.metrics[f"loss/{name}"]
        assert found == count
        torch.testing.assert_close(torch.as_tensor(total).double(), expected, rtol=1e-5, atol=1e-5)
        assert not torch.as_tensor(total).requires_grad


def test_held_out_loss_is_plain_whatever_training_adds(policy, packed):
    pack = packed(SFT(), {"chats": [messages(chat) for chat in CHATS]})
    added = SFT(label_smoothing=0.3, z_loss=0.1, embedding_noise=10.0)
    policy.train()
    try:
        measured, plain = added.measure({"policy": policy}, pack), SFT().loss({"policy": policy}, pack)
    finally:
        policy.eval()
    torch.testing.assert_close(measured.total, plain.total)
    assert measured.count == plain.count
    assert added.loss({"policy": policy}, pack).total > plain.total


def test_a_random_model_knows_nothing(policy, packed):
    pack = packed(SFT(), {"chats": [messages(chat) for chat in CHATS]})
    loss = SFT().measure({"policy": policy}, pack)
    assert abs(loss.total.item() / loss.count - math.log(policy.head.weight.shape[0])) < 0.1


@pytest.mark.parametrize("setting", ["label_smoothing", "z_loss", "embedding_noise"])
def test_settings_below_zero_are_refused(setting):
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        SFT(**{setting: -0.1})


def test_all_of_a_label_cannot_be_spread():
    with pytest.raises(ValueError, match="less than 1"):
        SFT(label_smoothing=1)
