"""Tiny random models, one of each architecture: real in every way but size, for tests and first tries."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig

from danlu.models.builtin.tiny_tokenizer import VOCAB_SIZE, tiny_tokenizer
from danlu.models.quiet import without_bars

SEED = 20230714
Sizes = dict[str, Any]
LLAMA: Sizes = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
FULL_HEADS: Sizes = LLAMA | {"num_key_value_heads": 4}
GEMMA: Sizes = LLAMA | {"head_dim": 16}
OLD: Sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}

# the architecture's name here -> the model type in transformers, and its sizes
ARCHITECTURES: dict[str, tuple[str, Sizes]] = {
    "llama": ("llama", LLAMA),
    "mistral": ("mistral", LLAMA | {"sliding_window": None}),
    "qwen2": ("qwen2", LLAMA | {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", GEMMA),
    "gemma": ("gemma", GEMMA),
    "gemma2": ("gemma2", GEMMA | {"query_pre_attn_scalar": 16, "sliding_window": 64}),
    "gemma3": ("gemma3_text", GEMMA | {"query_pre_attn_scalar": 16, "sliding_window": 64}),
    "phi3": ("phi3", FULL_HEADS | {"original_max_position_embeddings": 256}),
    "internlm": ("llama", FULL_HEADS | {"attention_bias": True}),
    "moe": ("qwen3_moe", GEMMA | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
    "mixtral": ("mixtral", LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "falcon": ("falcon", OLD | {"ffn_hidden_size": 128, "max_position_embeddings": 256}),
    "bloom": ("bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "gpt-neox": ("gpt_neox", OLD | {"intermediate_size": 128, "max_position_embeddings": 256}),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}),
}


def make_tiny(architecture: str, folder: Path) -> None:
    """Fill a folder with a random model of an architecture and the tiny tokenizer."""
    config = tiny_config(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=[config.eos_token_id], pad_token_id=config.pad_token_id
    )
    with without_bars():
        model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def tiny_config(architecture: str) -> PreTrainedConfig:
    """The configuration of one tiny architecture, with the tiny tokenizer's special ids."""
    kind, sizes = ARCHITECTURES[architecture]
    tokenizer = tiny_tokenizer()
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return AutoConfig.for_model(kind, vocab_size=VOCAB_SIZE, **ids, **sizes)
