"""Runs that another tool's file deals out among processes learn what one process learns."""

import pytest

from danlu.dialects.launch_files import launch_overrides
from tests.dialects.theirs import FAIRSCALE, PANDA_DEEPSPEED, llmbox, llms_trainer, write
from tests.runs.several import several
from tests.runs.small_run import SmallRun
from tests.runs.test_several_ranks import SMOOTH, same_curve

TORCH = FAIRSCALE.replace("fsdp_utils.default_initialize", "torch_fsdp_utils.torch_fsdp_peft_auto_wrap")
TORCH = "fp16: False\n" + "".join(
    line for line in TORCH.splitlines(True) if "move" not in line and "flatten" not in line
)
OFFLOADED = '{"name": "zero3", "offload": "params"}'
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "content", "overrides", "parallel"),
    [
        ("accelerate_stage2.yaml", llms_trainer("ds_stage2.yaml"), [], '{"name": "zero2"}'),
        ("fairscale.yaml", f"fp16: False\n{FAIRSCALE}", [], '{"name": "fsdp"}'),
        pytest.param("torch.yaml", TORCH, [], '{"name": "fsdp"}', marks=SLOW),
        pytest.param("accelerate_stage1.yaml", llms_trainer("ds_stage1.yaml"), [], '{"name": "zero1"}', marks=SLOW),
        pytest.param("accelerate_stage3.yaml", llms_trainer("ds_stage3.yaml"), [], '{"name": "zero3"}', marks=SLOW),
        pytest.param("accelerate_offload.yaml", llms_trainer("ds_stage3_offload.yaml"), [], OFFLOADED, marks=SLOW),
        pytest.param("z0.json", llmbox("ds_z0_bf16.json"), [], '{"name": "ddp"}', marks=SLOW),
        pytest.param("z3.json", llmbox("ds_z3_bf16.json"), [], '{"name": "zero3"}', marks=SLOW),
        pytest.param(
            "panda.yaml", PANDA_DEEPSPEED, ["ds_cfg.zero_optimization.stage=2"], '{"name": "zero2"}', marks=SLOW
        ),
    ],
)
def test_the_curve_is_that_of_one_process(tmp_path, name, content, overrides, parallel):
    path = write(tmp_path / name, content)
    engine, config = (None, path) if name.startswith("accelerate") else (path, None)
    run = SmallRun(tmp_path, SMOOTH)
    alike = [*overrides, "engine.precision=fp32"]  # as one process and several do, without bf16's rounding
    files = launch_overrides("sft_lora", alike, engine, config, {}, ranks=2)
    mine = [each for each in files if not each.startswith(("data.batch", "engine.parallel"))]
    assert [each for each in files if each.startswith("engine.parallel")] == [f"engine.parallel={parallel}"]
    one = SmallRun(tmp_path, (*SMOOTH, *mine))
    one.go(tmp_path / "one")
    assert several(2, ["sft_lora", *run.words(tmp_path / "two"), *mine, f"engine.parallel={parallel}"]) == [0, 0]
    same_curve(tmp_path / "two", tmp_path / "one")
