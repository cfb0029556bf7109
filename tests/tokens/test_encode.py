"""What is trained is the assistant's words and their end mark, and nothing else; what is served is what was trained."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from danlu.samples import Conversation, Document, Message
from danlu.tokens.encode import encode_prompt, encode_samples
from danlu.tokens.templates import templates
from danlu.tokens.templates.jinja import Jinja

NAMES = [name for name in templates if name != "jinja"]
TALK = [
    Message("user", "What is the sum of two and three?"),
    Message("assistant", "The sum is five.", train=True),
    Message("user", "法国的首都是哪里"),
    Message("assistant", "Paris 😀", train=True),
]
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def trained_runs(row, tokenizer) -> list[str]:
    """The trained texts, one for each stretch of trained ids."""
    runs, run = [], []
    for id, learnt in zip([*row.ids.tolist(), 0], [*row.trained.tolist(), False], strict=True):
        if learnt:
            run.append(id)
        elif run:
            runs.append(tokenizer.decode(run))
            run = []
    return runs


@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_answers_and_their_end_marks_are_trained(name, tokenizer):
    template = templates[name]()
    [row] = encode_samples([Conversation(TALK)], tokenizer, template)
    mark = template.stop_strings(tokenizer)[0]
    said = [run.strip() for run in trained_runs(row, tokenizer)]
    want = [message.content + mark for message in TALK if message.train]
    if tokenizer.backend_tokenizer.model.unk_token:  # the emoji is unknown to this one
        said, want = said[:1], want[:1]
    assert [one.replace(" ", "") for one in said] == [one.replace(" ", "") for one in want]


@pytest.mark.parametrize("name", NAMES)
def test_training_begins_with_the_served_prompt(name, tokenizer):
    template = templates[name]()
    [row] = encode_samples([Conversation(TALK)], tokenizer, template)
    for asked in (1, 3):
        served = encode_prompt(TALK[:asked], tokenizer, template)
        assert row.ids[: len(served)].tolist() == served
        assert row.trained[len(served)]
        assert not row.trained[len(served) - 1]


@pytest.mark.parametrize("content", ["plain words", " a space first", "\n\nlines", "", "数数:一、二", "it's 12345"])
def test_ids_are_those_of_apply_chat_template(content, tokenizer):
    talk = [Message("user", content), Message("assistant", "The furnace", train=True)]
    chat = [{"role": message.role, "content": message.content} for message in talk]
    [row] = encode_samples([Conversation(talk)], tokenizer, templates["own"]())
    assert row.ids.tolist() == tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)


@pytest.mark.parametrize("name", NAMES)
def test_there_is_never_a_second_bos(name, byte_tokenizer):
    [row] = encode_samples([Conversation(TALK[:2])], byte_tokenizer, templates[name]())
    assert row.ids.tolist().count(byte_tokenizer.bos_token_id) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_nobody_can_type_a_special_token(name, tokenizer):
    template = templates[name]()
    clean = [Message("user", "hi"), Message("assistant", "yes", train=True)]
    marks = "".join(str(token) for token in tokenizer.added_tokens_decoder.values())
    typed = [Message("user", f"hi {marks}"), Message("assistant", f"yes{marks}", train=True)]
    plain, attacked = encode_samples([Conversation(clean), Conversation(typed)], tokenizer, template)
    added = set(tokenizer.added_tokens_decoder)

    def specials(row):
        return [id for id in row.ids.tolist() if id in added]

    if tokenizer.backend_tokenizer.model.unk_token is None:
        assert specials(attacked) == specials(plain)
        assert marks in tokenizer.decode(attacked.ids)
    assert (
        encode_prompt(typed[:1], tokenizer, template)
        == attacked.ids[: len(encode_prompt(typed[:1], tokenizer, template))].tolist()
    )


def test_a_special_token_in_a_document_is_text(byte_tokenizer):
    [row] = encode_samples([Document("one</s>two")], byte_tokenizer, templates["own"]())
    assert row.ids.tolist().count(byte_tokenizer.eos_token_id) == 1
    assert byte_tokenizer.decode(row.ids) == "<s>one</s>two</s>"


def test_a_document_is_trained_whole_between_bos_and_eos(byte_tokenizer):
    [row] = encode_samples([Document("The river.")], byte_tokenizer, templates["own"]())
    assert (row.ids[0], row.ids[-1]) == (byte_tokenizer.bos_token_id, byte_tokenizer.eos_token_id)
    assert row.trained.tolist() == [False] + [True] * (len(row.ids) - 1)


def test_an_answer_that_would_merge_with_its_prompt_is_parted_from_it(byte_tokenizer):
    talk = [Message("user", "q"), Message("assistant", "the furnace", train=True)]
    template = templates["vicuna"]()  # its prompt ends with a space, which joins with a word that follows
    [row] = encode_samples([Conversation(talk)], byte_tokenizer, template)
    served = encode_prompt(talk[:1], byte_tokenizer, template)
    assert row.ids[: len(served)].tolist() == served
    assert trained_runs(row, byte_tokenizer) == ["the furnace</s>"]


def test_marks_that_swallow_whitespace_are_read_right(stripping_tokenizer):
    [row] = encode_samples([Conversation(TALK)], stripping_tokenizer, templates["chatml"]())
    assert [run.strip() for run in trained_runs(row, stripping_tokenizer)] == [
        "The sum is five.<|im_end|>",
        "Paris 😀<|im_end|>",
    ]


def test_a_template_without_an_end_of_turn_gets_the_eos(byte_tokenizer):
    bare = Jinja(
        text="{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    [row] = encode_samples([Conversation(TALK[:2])], byte_tokenizer, bare)
    assert trained_runs(row, byte_tokenizer) == ["The sum is five.</s>"]
    assert "eos was added" in row.note


def test_a_template_that_rewrites_history_is_followed(byte_tokenizer):
    talk = [
        Message("user", "one"),
        Message("assistant", "<think>hm</think>two", train=True),
        Message("user", "three"),
        Message("assistant", "<think>so</think>four", train=True),
    ]
    template = Jinja(text=THINKING)
    [row] = encode_samples([Conversation(talk)], byte_tokenizer, template)
    assert trained_runs(row, byte_tokenizer) == ["two<|im_end|>", "<think>so</think>four<|im_end|>"]
    served = encode_prompt(talk[:3], byte_tokenizer, template)
    assert row.ids[: len(served)].tolist() == served


def test_only_the_turns_that_say_so_are_trained(byte_tokenizer):
    talk = [TALK[0], Message("assistant", "The sum is five."), *TALK[2:]]
    [row] = encode_samples([Conversation(talk)], byte_tokenizer, templates["chatml"]())
    assert trained_runs(row, byte_tokenizer) == ["Paris 😀<|im_end|>"]


def test_a_chat_that_the_template_refuses_says_why(byte_tokenizer):
    bad, good = encode_samples(
        [Conversation([Message("tool", "x"), TALK[1]]), Conversation(TALK)], byte_tokenizer, templates["mistral"]()
    )
    assert "knows no role tool" in bad.problem
    assert not len(bad.ids)
    assert len(good.ids)


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Co"]), max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    question=words,
    answer=words.filter(str.strip),
    name=st.sampled_from(["chatml", "vicuna", "zephyr", "llama3", "alpaca"]),
)
def test_any_words_are_served_as_they_were_trained(question, answer, name, byte_tokenizer):
    talk = [Message("user", question), Message("assistant", answer, train=True)]
    template = templates[name]()
    [row] = encode_samples([Conversation(talk)], byte_tokenizer, template)
    served = encode_prompt(talk[:1], byte_tokenizer, template)
    assert row.ids[: len(served)].tolist() == served
    said = byte_tokenizer.decode(row.ids[row.trained])
    mark = template.stop_strings(byte_tokenizer)[0]
    assert said == (answer.strip() if name == "llama3" else answer) + mark or name == "llama3"
