"""Word by word gives the very ids and masks that the tokenizer gives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from danlu.models.builtin.tiny_tokenizer import tiny_tokenizer
from danlu.samples import Conversation, Document, Message
from danlu.tokens.encode import Encoder
from danlu.tokens.templates import templates
from danlu.tokens.words import Words, for_ascii

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
CUTS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama3": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTES]),
}
WORDS = "It's  1234 of don't\n\n\tthe 'll  x.y; WE'RE naïve ６ ½ 炉火\u3000里 \u00a0 end  \n 😀\u017f 'S"
texts = st.text(st.sampled_from(WORDS), max_size=40) | st.text(max_size=12) | st.just("<|im_end|>") | st.just(WORDS)


def tokenizer_of(cut: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = CUTS[cut]
    backend.normalizer = normalizers.NFC() if cut == "llama3" else None
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<|im_start|>", "<|im_end|>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([WORDS * 20, "user assistant system\n" * 20], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")


@pytest.fixture(scope="module", params=list(CUTS))
def cut_tokenizer(request) -> PreTrainedTokenizerFast:
    return tokenizer_of(request.param)


def both(samples, tokenizer, template) -> None:
    quick = Encoder(tokenizer, templates[template](), many=True)
    slow = Encoder(tokenizer, templates[template](), many=True)
    assert quick.quick is not None
    slow.quick = None
    for mine, theirs in zip(quick.samples(samples), slow.samples(samples), strict=True):
        assert mine.ids.tolist() == theirs.ids.tolist()
        assert mine.trained.tolist() == theirs.trained.tolist()


@settings(deadline=None, max_examples=60)
@given(
    turns=st.lists(texts, min_size=2, max_size=5), template=st.sampled_from(["chatml", "vicuna", "default", "llama2"])
)
def test_chats_have_the_same_ids_and_masks(turns, template, cut_tokenizer):
    turns = turns[: len(turns) // 2 * 2]
    roles = ["user", "assistant"] * (len(turns) // 2)
    chat = [Message(role, said, train=role == "assistant") for role, said in zip(roles, turns, strict=True)]
    both([Conversation(chat)], cut_tokenizer, template)


@settings(deadline=None, max_examples=100)
@given(text=texts)
def test_documents_have_the_same_ids(text, cut_tokenizer):
    both([Document(text), Document("a <|im_end|> typed")], cut_tokenizer, "chatml")


def test_a_tokenizer_that_cuts_in_another_way_is_left_alone():
    odd = tiny_tokenizer().backend_tokenizer
    assert Words.of(odd) is not None
    for cut in (
        pre_tokenizers.Metaspace(),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.BertPreTokenizer(),
    ):
        odd = Tokenizer(models.BPE())
        odd.pre_tokenizer = cut
        assert Words.of(odd) is None


def test_words_that_never_come_again_are_left_to_the_tokenizer():
    words = Words.of(tiny_tokenizer().backend_tokenizer)
    assert words is not None
    words.ids([[f"word{n}"] for n in range(60_000)])
    assert not words.pays


def test_what_was_forgotten_is_learnt_again(monkeypatch):
    backend = tiny_tokenizer().backend_tokenizer
    words = Words.of(backend)
    assert words is not None
    words.keep({"<s>": 0, "</s>": 1})
    monkeypatch.setattr("danlu.tokens.words.MOST_WORDS", 3)
    for lists in ([["one", " two"], ["</s>"]], [[" two", " four"]], [[], ["</s>", "one", "one"]]):
        ids, counts = words.ids(lists)
        own = [[1] if word == "</s>" else backend.encode(word).ids for some in lists for word in some]
        assert ids.tolist() == [id for some in own for id in some]
        sizes = [sum(len(backend.encode(word).ids) if word != "</s>" else 1 for word in some) for some in lists]
        assert counts.tolist() == sizes


def test_an_expression_for_ascii_keeps_its_meaning():
    assert for_ascii(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\[\p{L}\]") == (
        r"[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}|\[[A-Za-z]\]"
    )


def test_ids_that_the_tokenizer_would_not_give_are_found_out(caplog, monkeypatch):
    """One sample of each batch goes both ways; where they differ, the tokenizer's own way is taken for all."""
    encoder = Encoder(tokenizer_of("gpt2"), templates["chatml"](), many=True)
    monkeypatch.setattr(encoder.quick.words, "find_ascii", lambda text: [text.upper()])
    samples = [Document("it is a long way"), Document("short")]
    slow = Encoder(tokenizer_of("gpt2"), templates["chatml"]())
    assert [one.ids.tolist() for one in encoder.samples(samples)] == [one.ids.tolist() for one in slow.samples(samples)]
    assert encoder.quick is None
    assert "gives other ids" in caplog.text
