"""Tokenizers learned in memory: byte-level with and without a bos, and one that marks words as Llama 2 does."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from danlu.models.builtin.tiny_tokenizer import CHATML, SENTENCES, tiny_tokenizer

MARKS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
MARKS += ["<start_of_turn>", "<end_of_turn>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<eoa>", "<eoh>"]


def with_bos(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=CHATML,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def byte_level(**of_added: bool) -> PreTrainedTokenizerFast:
    """Knows the marks of many templates and begins a text with bos."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    marks = [AddedToken(mark, special=True, normalized=False, **of_added) for mark in MARKS]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(SENTENCES, trainer)
    return with_bos(bpe)


def metaspace() -> PreTrainedTokenizerFast:
    """Marks the first letter of a word, and of every text, as Llama 2 does."""
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<s>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    bpe.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first"), decoders.Fuse()]
    )
    marks = [AddedToken(mark, special=True, normalized=False) for mark in MARKS]
    alphabet = sorted(
        set("".join(SENTENCES) + "\n :[]/#?!.,'0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz<>|_-")
    )
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(SENTENCES, trainer)
    return with_bos(bpe)


@pytest.fixture(scope="session", params=["tiny", "byte", "metaspace"])
def tokenizer(request) -> PreTrainedTokenizerFast:
    return {"tiny": tiny_tokenizer, "byte": byte_level, "metaspace": metaspace}[request.param]()


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    return byte_level()


@pytest.fixture(scope="session")
def stripping_tokenizer() -> PreTrainedTokenizerFast:
    """Its marks swallow the whitespace around them, as Phi-3's do."""
    return byte_level(lstrip=True, rstrip=True)
