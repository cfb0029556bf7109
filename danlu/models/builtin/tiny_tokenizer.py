"""A small real tokenizer: byte-level BPE learned from a few English and Chinese sentences, with ChatML marks."""

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCAB_SIZE = 512
PAD, OPENING, CLOSING = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SENTENCES = [
    "The furnace is lit before dawn, and the alchemist writes down what goes into it.",
    "Please explain in one sentence what the capital of France is and why people go there.",
    "You are a helpful assistant. The user asks a question and the assistant answers it.",
    "Once upon a time there was a small model that learned to count: one, two, three, four, five.",
    "The quick brown fox jumps over the lazy dog while the rain in Spain stays mainly in the plain.",
    "What is the sum of two and three? The sum is five. What is the name of this river?",
    "炼丹的人在天亮之前点火,把放进炉子里的东西都写下来。",
    "请用一句话说明法国的首都是哪里,人们为什么去那里。",
    "你是一个乐于助人的助手。用户提出问题,助手回答问题。",
    "从前有一个小模型,它学会了数数:一、二、三、四、五。",
    "我们喜欢在春天的早晨到山上去看花,也喜欢在晚上读书。",
    "这条河叫什么名字?这条河叫长江,是中国最长的河。",
]


@cache
def learned() -> str:
    """The learned tokenizer as JSON: 512 tokens, 256 of them bytes, three of them special."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, OPENING, CLOSING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    return bpe.to_str()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of every tiny model; it pads with another token than the one that ends a turn."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(learned()),
        chat_template=CHATML,
        bos_token=OPENING,
        eos_token=CLOSING,
        pad_token=PAD,
        unk_token=PAD,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
