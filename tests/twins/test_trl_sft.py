"""Fine-tuning with TRL: the same rows give the same loss, gradient norm and weights."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from danlu.data.config import DataConfig
from danlu.data.pipeline import load_data
from danlu.engine.config import EngineConfig
from danlu.engine.engine import Engine
from danlu.engine.step import Update, train_step
from danlu.engine.training import Training
from danlu.models.adapters.full import Full
from danlu.models.load import ModelConfig
from danlu.objectives.sft import SFT
from danlu.tokens.tokenizer import load_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL warns about itself

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}BEGIN{{ message['content'] + '<|im_end|>' }}END"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TURNS = [1, 3, 2, 1]


def chats(turns: list[int]) -> list[list[dict[str, str]]]:
    """Rows of so many questions and answers each, no two alike."""
    words = ["one", "two three", "four five six " * 4, "seven", "eight nine", "ten"]
    return [
        [
            {"role": role, "content": f"{words[(row + turn + len(role)) % len(words)]} {row}{turn}"}
            for turn in range(count)
            for role in ("user", "assistant")
        ]
        for row, count in enumerate(turns)
    ]


def ours(folder: Path, place: Path, rows: list[list[dict[str, str]]], pack_tokens: int) -> tuple[Update, Training]:
    """One step of ours over all rows."""
    (place / "rows.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    template = {"name": "jinja", "text": CHATML.replace("BEGIN", "").replace("END", "")}
    data = DataConfig(
        sources=str(place / "rows.jsonl"),
        template=template,
        batch={"rows": len(rows)},
        pack_tokens=pack_tokens,
        cache=place / "cache",
        workers=1,
    )
    config = EngineConfig(
        steps=1,
        precision="fp32",
        device="cpu",
        optimizer={"name": "adamw", "lr": 1e-3, "weight_decay": 0.0},
        schedule="constant",
    )
    engine, objective = Engine(config), SFT()
    models = objective.models(engine.builder(ModelConfig(path=str(folder)), Full()))
    training = Training(config, models, engine.dtype, 1, lambda name: 1.0)
    loaded = load_data(data, load_tokenizer(folder), objective.learns_from, seed=0)
    [step] = loaded.loader(epochs=1)
    return train_step(engine, training, objective, step.packs, lambda: False), training


def theirs(folder: Path, place: Path, dataset: Dataset, template: str, **settings) -> SFTTrainer:
    """One step of TRL over all rows."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=SFTConfig(
            output_dir=str(place / "trl"),
            max_steps=1,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            gradient_checkpointing=False,
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    trainer.train()
    return trainer


def compare(update: Update, training: Training, trainer: SFTTrainer) -> None:
    log = trainer.state.log_history[0]
    assert update.loss == pytest.approx(log["loss"], abs=1e-5)
    assert update.grad_norm == pytest.approx(log["grad_norm"], rel=1e-4)
    for name, value in trainer.model.state_dict().items():
        mine = training.models["policy"].model.state_dict()[name]
        torch.testing.assert_close(mine, value, rtol=0, atol=1e-4, msg=name)  # a tenth of the first step of Adam
    assert log["num_tokens"] == update.tokens


@pytest.mark.parametrize(("batch", "accumulate"), [(4, 1), (2, 2), (1, 4)])
def test_assistant_turns_give_trls_loss_norm_and_weights(tiny, tmp_path, batch, accumulate):
    rows = chats(TURNS)
    update, training = ours(tiny("llama"), tmp_path, rows, pack_tokens=[4096, 64, 32][accumulate // 2])
    trainer = theirs(
        tiny("llama"),
        tmp_path,
        Dataset.from_list([{"messages": row} for row in rows]),
        CHATML.replace("BEGIN", "{% generation %}").replace("END", "{% endgeneration %}"),
        assistant_only_loss=True,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
    )
    compare(update, training, trainer)


def test_prompts_and_completions_give_trls_loss_norm_and_weights(tiny, tmp_path):
    rows = chats([1, 1, 1, 1])
    update, training = ours(tiny("llama"), tmp_path, rows, pack_tokens=4096)
    trainer = theirs(
        tiny("llama"),
        tmp_path,
        Dataset.from_list([{"prompt": row[:-1], "completion": row[-1:]} for row in rows]),
        CHATML.replace("BEGIN", "").replace("END", ""),
        completion_only_loss=True,
        per_device_train_batch_size=4,
    )
    compare(update, training, trainer)
