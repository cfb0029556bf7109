"""Continue prompts over transformers' generate with its key-value cache. Only here is anything padded: on the left."""

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig as Decoding
from transformers import PreTrainedModel

from danlu.generate.base import GenerationConfig


def complete(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[list[int]],
    config: GenerationConfig,
    stops: set[int],
    pad: int,
    **hooks: Any,
) -> list[list[int]]:
    """The ids that follow each prompt, up to and with the stop token. `pad` is masked, so any id would do."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    device, training = model.device, model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(config.seed)
            written: Any = model.generate(  # type: ignore[operator]
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=decoding(config, stops, pad),
                **hooks,
            )
    finally:
        model.train(training)
    return [until_stop(row, stops) for row in written[:, longest:].tolist()]


def decoding(config: GenerationConfig, stops: set[int], pad: int) -> Decoding:
    """The same settings in transformers' words; what does not apply is left out, as it would warn."""
    sampled = {"temperature": config.temperature, "top_p": config.top_p, "top_k": config.top_k}
    return Decoding(
        max_new_tokens=config.max_tokens,
        min_new_tokens=config.min_tokens or None,
        do_sample=config.temperature > 0,
        repetition_penalty=config.repetition_penalty,
        eos_token_id=sorted(stops) or None,
        pad_token_id=pad,
        **(sampled if config.temperature > 0 else {}),
    )


def until_stop(ids: list[int], stops: set[int]) -> list[int]:
    """A row without the padding behind its stop token."""
    end = next((at for at, token in enumerate(ids) if token in stops), len(ids) - 1)
    return ids[: end + 1]
