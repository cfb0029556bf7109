"""Whatever a file holds, it is read or refused in words; nothing else comes of it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.core.errors import UserError
from danlu.dialects import accelerate as accelerates
from danlu.dialects import deepspeed as deepspeeds
from danlu.dialects import fairscale as fairscales
from danlu.dialects.accelerate import accelerate
from danlu.dialects.deepspeed import deepspeed
from danlu.dialects.fairscale import BLOCKS, hydra

WORDS = sorted(
    {
        "enabled",
        "device",
        "type",
        "params",
        "lr",
        "betas",
        "warmup_num_steps",
        "dtype",
        "_target_",
        "fp16",
        "auto",
        "cpu",
    }
    | {
        "stage",
        "offload_param",
        "offload_optimizer",
        "fsdp_version",
        "fsdp_reshard_after_forward",
        "zero_stage",
        "AdamW",
    }
    | {"WarmupLR", "FSDP", "DEEPSPEED", "MULTI_GPU", "deepspeed_config_file", "nan", "${fp16}", "${ds_cfg.bf16}"}
    | {*deepspeeds.TAKEN, *accelerates.TAKEN, *BLOCKS, "elasticity", "amp", "zenflow", "sparse_attention"}
)
keys = st.sampled_from(WORDS) | st.text(max_size=3) | st.integers(0, 3)
leaves = st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.sampled_from(WORDS) | st.text(max_size=3)
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5))


def files_of(known: list[str]) -> st.SearchStrategy:
    """Mappings of keys that are known, and now and then of others."""
    inside = st.dictionaries(st.sampled_from(WORDS), leaves | st.lists(leaves, max_size=2), max_size=3)
    mostly = st.dictionaries(st.sampled_from(known), leaves | inside | trees, max_size=4)
    return mostly | st.dictionaries(keys, trees, max_size=4)


def read_or_refused(read, *given) -> None:
    try:
        reading = read(*given)
    except UserError:
        return
    assert all(isinstance(line, str) for line in reading.lines)


@given(tree=files_of(deepspeeds.TAKEN), ranks=st.integers(1, 4))
@settings(deadline=None, max_examples=200)
def test_deepspeeds(tree, ranks):
    read_or_refused(deepspeed, tree, ranks)


@given(tree=files_of(accelerates.TAKEN), engine=st.none() | files_of(deepspeeds.TAKEN), ranks=st.integers(1, 4))
@settings(deadline=None, max_examples=200)
def test_accelerates(tree, engine, ranks):
    read_or_refused(accelerate, tree, ranks, "config.yaml", engine)


@given(tree=files_of(BLOCKS), block=files_of([*deepspeeds.TAKEN, *fairscales.TAKEN]), name=st.sampled_from(BLOCKS))
@settings(deadline=None, max_examples=100)
def test_hydras(tree, block, name):
    read_or_refused(hydra, tree | {name: block}, 2, [f"{name}.fp16=true"])
