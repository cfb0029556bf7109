"""`danlu plan`: what a recipe needs, on which GPU, and what helps where it does not fit. No weights are there."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from danlu.core.errors import MemoryLimit
from danlu.engine.planner.plan import Device
from danlu.engine.planner.planner import smaller
from danlu.runs import plan as planning
from danlu.runs.plan import answer, device_of, here, plan, planner_of
from danlu.runs.recipe import load_recipe

SMALL = {"model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "dtype": "bfloat16"}
HEADS = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}
GIB = 2**30


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SMALL | HEADS))

    def make(*words, name="sft_lora"):
        return load_recipe(name, [f"model.path={tmp_path}", "data.sources=[]", "data.max_length=512", *words])

    return make


def printed(run, *names, **options):
    console = Console(file=io.StringIO(), width=120)
    answers = plan(run, names, console=console, **options)
    return answers, console.file.getvalue()


def gpu_with(memory_bytes):
    return replace(device_of("h100"), memory_bytes=memory_bytes)


def test_every_term_is_printed_with_the_peak_and_the_speed(recipe):
    [found], text = printed(recipe(), "h100")
    for name in ("weights", "masters", "gradients", "optimizer", "activations", "working", "workspace", "peak"):
        assert name in text
    assert "fits" in text
    assert "tokens/s" in text
    assert found.plan.peak == pytest.approx(sum(found.plan.terms.values()))


@pytest.mark.parametrize("name", ["reward", "dpo", "kto"])
def test_objectives_of_pairs_are_planned_in_rows_of_two_answers(recipe, name):
    planner, _ = planner_of(recipe(name=name), device_of("h100"))
    assert planner.longest == 2 * 512
    found = planner.choose("auto", "none")
    assert found.activations > 0
    assert found.choice.pack_tokens % (2 * 512) == 0


def test_a_reference_keeps_no_activations(recipe):
    plans = [
        planner_of(recipe("data.pack_tokens=1024", name=name), device_of("h100"))[0].choose(1024, "none")
        for name in ("sft_lora", "dpo")
    ]
    assert plans[1].activations == pytest.approx(plans[0].activations, rel=0.02)
    assert plans[1].peak == pytest.approx(plans[0].peak, rel=0.05)


def test_json_says_the_same_in_bytes(recipe):
    [found], text = printed(recipe(), "h100", as_json=True)
    [told] = json.loads(text)
    assert told["peak"] == round(found.plan.peak)
    assert sum(told["terms"].values()) == pytest.approx(told["peak"], abs=20)
    assert told["fits"] is True
    assert told["device"] == "h100"


def test_several_gpus_have_a_row_each(recipe):
    found, text = printed(recipe(), "4090", "b200")
    assert all(name in text for name in ("4090", "b200", "23.5 GiB", "178.3 GiB"))
    assert found[0].speed < found[1].speed


def test_a_gpu_without_bf16_computes_in_fp32(recipe):
    new, old = (answer(recipe(), device_of(name), 1, "ddp", "none").plan for name in ("h100", "t4"))
    assert old.holdings.weights == pytest.approx(2 * new.holdings.weights, rel=1e-3)
    assert old.holdings.masters == 0


def test_what_does_not_fit_is_an_error_that_names_the_term_and_what_helps(recipe, monkeypatch):
    run = recipe("data.pack_tokens=16384")
    whole = answer(run, device_of("h100"), 1, "ddp", "none").plan
    monkeypatch.setattr(planning, "device_of", lambda name: gpu_with(whole.needed - 1))
    with pytest.raises(MemoryLimit, match=r"does not fit .* most is activations") as refused:
        printed(run, "h100")
    assert refused.value.exit_code == 5


def test_suggestions_come_in_order_and_each_needs_less_than_the_one_before(recipe):
    run = recipe("data.pack_tokens=8192", "engine.optimizer=adamw", name="sft_full")
    found = answer(run, gpu_with(1.0), 1, "ddp", "none")
    words = [each.words for each in found.suggestions]
    order = ["engine.gradient_checkpointing=", "data.pack_tokens=512"]
    assert [each for each in order if any(word.startswith(each) for word in words)] == order
    needs = [found.plan.needed, *(each.plan.needed for each in found.suggestions)]
    assert needs == sorted(needs, reverse=True)
    assert not found.fits


def test_as_few_blocks_are_recomputed_as_help(recipe):
    run = recipe("data.pack_tokens=8192")
    planner, _ = planner_of(run, device_of("h100"))
    plans = [planner.plan(choice) for choice in planner.choices(8192, "auto")][:-1]  # the loss needs more than a block
    assert [each.needed for each in plans] == sorted((each.needed for each in plans), reverse=True)
    for wanted in (plans[1], plans[2]):
        found = answer(run, gpu_with(wanted.needed), 1, "ddp", "none")
        assert found.suggestions[0].words == f"engine.gradient_checkpointing={wanted.choice.recomputed}"
        assert found.fits


def test_sharing_among_gpus(recipe):
    """Row I12: GPUs and GB for each stage, with optimiser and parameters offloaded."""
    run = recipe(name="sft_full")
    planner, _ = planner_of(run, device_of("h100"))
    alone = planner.holdings
    one, two, three = (planner.dealt(stage, 4) for stage in ("zero1", "zero2", "zero3"))
    assert planner.dealt("ddp", 4) == alone
    assert (one.optimizer, one.masters) == (alone.optimizer / 4, alone.masters / 4)
    assert (one.gradients, one.learning) == (alone.gradients, alone.learning)
    assert two.gradients == alone.gradients / 4
    assert three.learning == alone.learning / 4
    assert three.gathered > 0
    assert planner.dealt("zero3", 4, "optimizer").optimizer == 0
    assert planner.dealt("zero3", 4, "all").learning == 0
    [found], text = printed(run, "h100", ranks=4, parallel="zero2")
    assert found.plan.holdings == two
    assert [(row["parallel"], row["offload"]) for row in found.stages] == planning.STAGES
    assert all(row["fewest_gpus"] == 1 for row in found.stages)
    assert "zero3" in text


def test_more_gpus_are_suggested_when_one_can_never_do(recipe):
    words = ("data.pack_tokens=512", "engine.gradient_checkpointing=full", "engine.optimizer=sgd")
    run = recipe(*words, name="sft_full")
    planner, _ = planner_of(run, device_of("h100"))
    choice = planner.choose(512, "full").choice
    two, four = (planner.plan(choice, planner.dealt("zero3", ranks)).needed for ranks in (2, 4))
    found = answer(run, gpu_with((two + four) / 2), 1, "ddp", "none")
    assert found.suggestions[-1].words == "--gpus 4 --parallel zero3"
    assert found.fits


def test_this_machine_is_planned_for_where_no_gpu_is_named(recipe):
    [found], text = printed(recipe())
    assert found.plan.device.kind == here().kind
    assert "peak" in text


def test_auto_picks_the_largest_packs_that_fit_before_it_recomputes(recipe):
    run = recipe("data.batch={tokens: 8192}")
    planner, _ = planner_of(run, device_of("h100"))
    assert planner.choose("auto", "auto").choice.pack_tokens == 8192
    half = planner.plan(replace(planner.choose("auto", "auto").choice, pack_tokens=4096))
    tight, _ = planner_of(run, gpu_with(half.needed))
    assert (tight.choose("auto", "auto").choice) == half.choice
    least = planner.plan(replace(half.choice, pack_tokens=512))
    tighter, _ = planner_of(run, gpu_with(least.needed - 1))
    assert tighter.choose("auto", "auto").choice.recomputed == 1


def test_stepping_down_ends():
    from danlu.engine.planner.plan import Choice

    choice, steps = Choice(4096, 0), []
    while choice := smaller(choice, 8, 1000):
        steps.append((choice.pack_tokens, choice.recomputed))
    assert steps == [(4096, 2), (4096, 4), (4096, 6), (4096, 8), (2048, 8), (1024, 8), (1000, 8)]


def test_a_plan_knows_whether_it_fits():
    assert Device("tiny", "cpu", 1.0).gpu is None


def test_what_saves_memory_is_counted_as_it_will_run(recipe):
    words = ("data.pack_tokens=8192", "data.max_length=8192")
    plain, away, chunked = (
        answer(recipe(*words, *more), device_of("h100"), 1, "ddp", "none").plan
        for more in ((), ("engine.offload_activations=true",), ("engine.mlp_chunk=auto",))
    )
    assert away.activations < 0.3 * plain.activations
    assert away.peak < plain.peak
    assert chunked.activations < plain.activations
