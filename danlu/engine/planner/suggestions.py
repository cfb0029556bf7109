"""What to do when a recipe does not fit, in the order of what it costs: each with the peak it would have."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec

from danlu.engine.optimizers.base import Optimizer, optimizers
from danlu.engine.planner.holdings import Holdings, holdings
from danlu.engine.planner.plan import Plan
from danlu.engine.planner.planner import OutlineBuilder, Planner
from danlu.models.quantizers.base import quantizers

MOST_RANKS = 512


@dataclass(frozen=True)
class Suggestion:
    """One change on top of those before it: what to type, and the plan it gives."""

    words: str
    plan: Plan


def suggestions(planner: Planner, plan: Plan) -> Iterator[Suggestion]:
    """Each change adds to those before it; ends with the first that fits. The last one that can help is more GPUs."""
    for step in (fewer_activations, smaller_packs, eight_bit_optimizer, quantized_base, more_gpus):
        for found in step(planner, plan):
            plan = found.plan
            yield found
            if plan.fits:
                return


def fewer_activations(planner: Planner, plan: Plan) -> Iterator[Suggestion]:
    """Recompute as few blocks as help, or all."""
    counts = range(plan.choice.recomputed + 1, planner.num_blocks + 1)
    plans = [changed(planner, plan, recomputed=count) for count in counts]
    if plans:
        found = next((one for one in plans if one.fits), min(plans, key=lambda one: one.needed))
        count = found.choice.recomputed
        setting = "full" if count == planner.num_blocks else str(count)
        yield Suggestion(f"engine.gradient_checkpointing={setting}", found)


def smaller_packs(planner: Planner, plan: Plan) -> Iterator[Suggestion]:
    """Packs of half the size and half of that, of which a step has more; the global batch stays."""
    size = plan.choice.pack_tokens // 2
    while size >= planner.longest:
        found = changed(planner, plan, pack_tokens=size)
        if found.fits or size // 2 < planner.longest:
            yield Suggestion(f"data.pack_tokens={size} (the global batch stays)", found)
            return
        size //= 2


def eight_bit_optimizer(planner: Planner, plan: Plan) -> Iterator[Suggestion]:
    """An optimiser that keeps its state in a byte for each weight."""
    name = next((name for name in optimizers if name.replace("_", "").endswith("adamw8bit")), None)
    if name is None or not plan.holdings.optimizer:
        return
    with_less = holdings(planner.models, planner.masters, part(name), planner.beside)
    share = with_less.optimizer / planner.holdings.optimizer
    held = replace(plan.holdings, optimizer=plan.holdings.optimizer * share)
    if share < 1:
        yield Suggestion(f"engine.optimizer={name}", replace(plan, holdings=held))


def part(name: str) -> Optimizer:
    """An optimiser at its defaults."""
    return optimizers[name]()


def quantized_base(planner: Planner, plan: Plan) -> Iterator[Suggestion]:
    """Four bits for each weight that does not learn, or eight where bitsandbytes is not installed."""
    build = planner.build
    if build.model.quantizer is not None or build.model.adapters or build.adapter.needs_whole_weights:
        return
    name = "nf4" if find_spec("bitsandbytes") else "int8"
    model = build.model.model_copy(update={"quantizer": quantizers[name]()})
    other = planner.on(OutlineBuilder(model, build.adapter))
    weights = plan.holdings.weights * other.holdings.weights / planner.holdings.weights
    yield Suggestion(f"model.quantizer={name}", other.plan(plan.choice, replace(plan.holdings, weights=weights)))


def more_gpus(planner: Planner, plan: Plan) -> Iterator[Suggestion]:
    """The fewest GPUs that share everything."""
    if plan.device.kind == "cuda":
        found = fewest(lambda ranks: replace(plan, holdings=shared(planner, plan.holdings, ranks)))
        if found is not None:
            ranks, with_more = found
            yield Suggestion(f"--gpus {ranks} --parallel zero3", with_more)


def shared(planner: Planner, held: Holdings, ranks: int) -> Holdings:
    """Everything dealt out."""
    return held.dealt("zero3", ranks, "none", planner.dealt("zero3", ranks).gathered)


def fewest(plan_of: Callable[[int], Plan]) -> tuple[int, Plan] | None:
    """The smallest power of two of GPUs whose plan fits."""
    ranks = 1
    while ranks <= MOST_RANKS:
        plan = plan_of(ranks)
        if plan.fits:
            return ranks, plan
        ranks *= 2
    return None


def changed(planner: Planner, plan: Plan, **choice: int) -> Plan:
    """The same with another choice."""
    return planner.plan(replace(plan.choice, **choice), plan.holdings)
