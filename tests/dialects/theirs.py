"""Launch files as four other toolkits ship or print them: their keys and values."""

import json
from pathlib import Path
from typing import Any

BATCH = {
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "steps_per_print": 2000,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "wall_clock_breakdown": False,
}
BF16 = {"bf16": {"enabled": True}}
CPU = {"device": "cpu", "pin_memory": True}
Z1 = {
    "stage": 1,
    "allgather_partitions": True,
    "reduce_scatter": True,
    "overlap_comm": True,
    "contiguous_gradients": True,
}
Z2 = Z1 | {"stage": 2, "allgather_bucket_size": 2e8, "reduce_bucket_size": 2e8}
Z3 = {
    "stage": 3,
    "overlap_comm": True,
    "contiguous_gradients": True,
    "sub_group_size": 1e9,
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto",
    "stage3_max_live_parameters": 1e9,
    "stage3_max_reuse_distance": 1e9,
    "stage3_gather_16bit_weights_on_model_save": True,
}
LLMBOX: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "ds_z0_bf16.json": ({"stage": 0}, {"name": "ddp"}),
    "ds_z1_bf16.json": (Z1, {"name": "zero1"}),
    "ds_z2_bf16.json": (Z2, {"name": "zero2"}),
    "ds_z2_offload_optim_bf16.json": (Z2 | {"offload_optimizer": CPU}, {"name": "zero2", "offload": "optimizer"}),
    "ds_z3_bf16.json": (Z3, {"name": "zero3"}),
    "ds_z3_offload_param_bf16.json": (Z3 | {"offload_param": CPU}, {"name": "zero3", "offload": "params"}),
    "ds_z3_offload_param_optim_bf16.json": (
        Z3 | {"offload_param": CPU, "offload_optimizer": CPU},
        {"name": "zero3", "offload": "params"},
    ),
}
"""LLMBox's seven: what `zero_optimization` holds, and what it means"""


def llmbox(name: str) -> dict[str, Any]:
    """One of the seven, whole."""
    return {**BF16, "zero_optimization": LLMBOX[name][0], **BATCH}


COMMON = """compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
downcast_bf16: 'no'
machine_rank: 0
main_training_function: main
mixed_precision: bf16
num_machines: 1
rdzv_backend: static
same_network: true
tpu_env: []
tpu_use_cluster: false
tpu_use_sudo: false
use_cpu: false
"""
STAGE = """num_processes: {processes}
deepspeed_config:
  gradient_accumulation_steps: 1
  gradient_clipping: 1.0
  offload_optimizer_device: {offload}
  offload_param_device: {offload}
  zero3_init_flag: {init}
  zero_stage: {stage}
"""
LLMS_TRAINER: dict[str, tuple[str, dict[str, str]]] = {
    "ds_stage1.yaml": (STAGE.format(processes=4, offload="none", init="false", stage=1), {"name": "zero1"}),
    "ds_stage2.yaml": (STAGE.format(processes=5, offload="none", init="false", stage=2), {"name": "zero2"}),
    "ds_stage3.yaml": (STAGE.format(processes=8, offload="none", init="true", stage=3), {"name": "zero3"}),
    "ds_stage3_offload.yaml": (
        STAGE.format(processes=8, offload="cpu", init="true", stage=3),
        {"name": "zero3", "offload": "params"},
    ),
}
"""LLMs Trainer's four: the part that differs, and what it means"""


def llms_trainer(name: str) -> str:
    """One of the four, whole."""
    return COMMON + LLMS_TRAINER[name][0]


FSDP1 = """compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_activation_checkpointing: true
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_backward_prefetch: BACKWARD_PRE
  fsdp_cpu_ram_efficient_loading: true
  fsdp_forward_prefetch: false
  fsdp_offload_params: true
  fsdp_reshard_after_forward: FULL_SHARD
  fsdp_state_dict_type: SHARDED_STATE_DICT
  fsdp_sync_module_states: true
  fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer
  fsdp_use_orig_params: true
  fsdp_version: 1
mixed_precision: bf16
num_machines: 1
num_processes: 2
"""
FSDP2 = """compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_cpu_ram_efficient_loading: false
  fsdp_offload_params: false
  fsdp_reshard_after_forward: %s
  fsdp_state_dict_type: FULL_STATE_DICT
  fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer
  fsdp_version: 2
mixed_precision: 'no'
num_machines: 1
num_processes: 2
"""
"""one of each version, as `accelerate config` writes them; the second with a word to fill in"""
GENIE_YAML = """compute_environment: LOCAL_MACHINE
deepspeed_config:
  gradient_accumulation_steps: 4
  gradient_clipping: 0.5
  offload_optimizer_device: none
  offload_param_device: none
  zero3_init_flag: false
  zero_stage: 2
distributed_type: DEEPSPEED
downcast_bf16: 'no'
machine_rank: 0
main_training_function: main
mixed_precision: fp16
num_machines: 1
num_processes: 4
rdzv_backend: static
same_network: true
tpu_env: []
tpu_use_cluster: false
tpu_use_sudo: false
use_cpu: false
"""
GENIE_LEFT_OVER = GENIE_YAML.replace("DEEPSPEED", "MULTI_GPU")
"""its own file: several GPUs, and a block for DeepSpeed that nothing reads"""
GENIE_JSON = """{
  "train_micro_batch_size_per_gpu": "auto",
  "gradient_accumulation_steps": "auto",
  "gradient_clipping": "auto",
  "zero_allow_untested_optimizer": true,
  "fp16": {
    "enabled": "auto",
    "loss_scale": 0,
    "initial_scale_power": 16,
    "loss_scale_window": 1000,
    "hysteresis": 2,
    "min_loss_scale": 1
  },
  "zero_optimization": {
    "stage": 2,
    "allgather_partitions": true,
    "allgather_bucket_size": 5e8,
    "reduce_scatter": true,
    "reduce_bucket_size": 5e8,
    "overlap_comm": false,
    "contiguous_gradients": true
  }
}
"""
PANDA = """hydra:
  run:
    dir: ./
train_file: ???
output_dir: experiments/${hydra:runtime.choices}
model:
  _target_: models.llama.LlamaForConditionalGeneration.from_pretrained
per_gpu_train_batch_size: 2
learning_rate: 1e-4
gradient_accumulation_steps: 16
weight_decay: 0.00
adam_epsilon: 1e-6
max_grad_norm: 0.3
fp16: True
fp16_bfloat16: True
%s
ds_cfg:
  train_micro_batch_size_per_gpu: ${per_gpu_train_batch_size}
  gradient_accumulation_steps: ${gradient_accumulation_steps}
  optimizer:
    type: AdamW
    params:
      lr: ${learning_rate}
      betas: [0.9, 0.999]
      eps: ${adam_epsilon}
      weight_decay: ${weight_decay}
  scheduler:
    type: WarmupLR
    params:
      warmup_max_lr: ${learning_rate}
      warmup_num_steps:
      warmup_type: linear
  gradient_clipping: ${max_grad_norm}
  bf16:
    enabled: ${fp16}
  zero_optimization:
    stage: 1
    contiguous_gradients: True
    overlap_comm: True
    reduce_scatter: True
    reduce_bucket_size: 5e8
    allgather_bucket_size: 5e8
  steps_per_print: 25
"""
FAIRSCALE = """fairscale_config:
  _target_: general_util.fsdp_utils.default_initialize
  fp16: ${fp16}
  move_grads_to_cpu: False
  move_params_to_cpu: False
  flatten_parameters: False
"""
PANDA_DEEPSPEED, PANDA_BOTH = PANDA % "fairscale_config:", PANDA % FAIRSCALE


def write(path: Path, content: str | dict[str, Any]) -> Path:
    """A file of text, or of JSON."""
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2), encoding="utf-8")
    return path
