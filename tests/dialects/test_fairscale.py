"""PandaLLM's Hydra files: the blocks for the launch, whatever else they hold."""

import pytest

from danlu.core.config import read_tree
from danlu.core.errors import UserError
from danlu.dialects.fairscale import hydra
from tests.dialects.theirs import FAIRSCALE, PANDA_BOTH, PANDA_DEEPSPEED, write

TORCH = """fairscale_config:
  _target_: general_util.torch_fsdp_utils.{function}
  fp16: ${{fp16}}
  fp16_bfloat16: ${{fp16_bfloat16}}
  cpu_offload: {offload}
fp16: True
fp16_bfloat16: True
"""


@pytest.fixture
def read(tmp_path):
    def read(text: str, *overrides: str):
        return hydra(read_tree(write(tmp_path / "panda.yaml", text)), 2, list(overrides), "panda.yaml")

    return read


def test_ds_cfg_with_what_it_refers_to(read):
    settings = read(PANDA_DEEPSPEED).settings
    assert settings == {
        "engine.parallel": {"name": "zero1"},
        "engine.precision": "bf16",
        "engine.max_grad_norm": 0.3,
        "engine.optimizer": {"name": "adamw", "lr": 1e-4, "weight_decay": 0.0, "betas": [0.9, 0.999], "eps": 1e-6},
        "engine.schedule": {"name": "warmup", "curve": "linear"},  # its steps are filled in when the length is known
        "engine.optimizer.lr": 1e-4,
        "data.batch": {"rows": 64},
    }


def test_an_override_of_the_stage_takes_effect(read):
    settings = read(PANDA_DEEPSPEED, "ds_cfg.zero_optimization.stage=2").settings
    assert settings["engine.parallel"] == {"name": "zero2"}
    added = read(
        PANDA_DEEPSPEED, "ds_cfg.zero_optimization.stage=3", "ds_cfg.zero_optimization.offload_param.device=cpu"
    )
    assert added.settings["engine.parallel"] == {"name": "zero3", "offload": "params"}


def test_a_wrong_override_is_told_where_it_stands(read):
    with pytest.raises(
        UserError, match=r"panda.yaml: ds_cfg.zero_optimization.stag: unknown key; did you mean 'stage'"
    ):
        read(PANDA_DEEPSPEED, "ds_cfg.zero_optimization.stag=2")


def test_of_two_blocks_deepspeeds_is_read_and_the_other_can_be_chosen(read):
    reading = read(PANDA_BOTH)
    assert reading.settings["engine.parallel"] == {"name": "zero1"}
    assert any("fairscale_config: not read beside ds_cfg" in line for line in reading.told)
    assert read(PANDA_BOTH, "ds_cfg=null").settings == {"engine.parallel": {"name": "fsdp"}, "engine.precision": "bf16"}


@pytest.mark.parametrize("function", ["default_initialize", "default_initialize_v2", "recursive_initialize"])
@pytest.mark.parametrize("moved", [False, True])
def test_fairscale_is_fsdp(read, function, moved):
    text = FAIRSCALE.replace("default_initialize", function).replace("params_to_cpu: False", f"params_to_cpu: {moved}")
    reading = read(f"fp16: True\n{text}  min_num_params: 1e8\n  disable_reshard_on_root: False\n")
    offload = {"offload": "params"} if moved else {}
    assert reading.settings == {"engine.parallel": {"name": "fsdp"} | offload, "engine.precision": "fp16"}
    assert any("_target_" in line and "fsdp" in line for line in reading.told)
    assert any("the model's own blocks are the units" in line for line in reading.lines)


@pytest.mark.parametrize("function", ["auto_wrap", "size_auto_wrap", "transformer_init", "peft_auto_wrap"])
def test_torchs_own_fsdp_too(read, function):
    settings = read(TORCH.format(function=f"torch_fsdp_{function}", offload=False)).settings
    assert settings == {"engine.parallel": {"name": "fsdp"}, "engine.precision": "bf16"}
    moved = read(TORCH.format(function=f"torch_fsdp_{function}", offload=True)).settings
    assert moved["engine.parallel"] == {"name": "fsdp", "offload": "params"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("_target_: os.system", "os.system is not known"),
        ("_target_: general_util.fsdp_utils.default_initialise", "did you mean"),
        ("move_param_to_cpu: True", "did you mean 'move_params_to_cpu'"),
    ],
)
def test_what_is_not_known_is_refused_and_nothing_is_called(read, line, words):
    key = line.partition(":")[0]
    kept = [each for each in FAIRSCALE.splitlines() if not each.strip().startswith(f"{key}:")]
    with pytest.raises(UserError) as error:
        read("\n".join(["fp16: True", *kept, f"  {line}", ""]))
    assert words in str(error.value)


def test_empty_blocks_say_nothing(read):
    reading = read("ds_cfg:\nfairscale_config:\n")
    assert reading.settings == {}
    assert "say nothing" in reading.told[0]
