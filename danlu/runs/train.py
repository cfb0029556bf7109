"""From a recipe to an artifact."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from danlu.core.cache_folder import cache_folder
from danlu.core.config import to_yaml
from danlu.core.errors import Preempted, UserError
from danlu.core.files import folder_at_once, sweep, write_atomic, write_json
from danlu.core.launcher import ECHO_SECONDS, again
from danlu.core.lock import Lock
from danlu.core.ranks import Ranks
from danlu.data.pipeline import Data, open_data
from danlu.data.stream.data import StreamedData
from danlu.data.tally import lines
from danlu.engine.checkpoint import Checkpoints
from danlu.engine.checkpoint_folder import Checkpoint, Writer
from danlu.engine.engine import Engine, open_ranks
from danlu.engine.guard import Guard
from danlu.engine.heartbeats import SAVING, Heart
from danlu.engine.hooks.base import Listeners
from danlu.engine.left_alone import saving_alone
from danlu.engine.loop import fit
from danlu.engine.planner.planner import Planner
from danlu.engine.records import RunFacts, Summary
from danlu.engine.room import Room
from danlu.engine.session import Session
from danlu.engine.signals import Stop
from danlu.engine.training import Training
from danlu.evals.baseline import Baseline
from danlu.models.adapters.base import trainable_report
from danlu.models.load import tokenizer_of
from danlu.models.save import save_tokenizer
from danlu.objectives.base import Learning, Models, Words, together
from danlu.runs.folder import RunFolder
from danlu.runs.identity import identity
from danlu.runs.plan import here, planner_of
from danlu.runs.rank_log import speaking
from danlu.runs.references import give_references
from danlu.runs.train_run import TrainRun

log = logging.getLogger(__name__)


def train(run: TrainRun, folder: RunFolder, *, resume: bool = False, allow_config_change: bool = False) -> Path:
    """Train from the first step, or go on from the newest whole checkpoint; returns the folder of the artifact.

    Of several processes the first one holds the folder, writes it and speaks.
    """
    ranks = open_ranks(run.engine)
    heart = Heart(folder.ranks if ranks.count > 1 else None, ranks.rank)
    guard = Guard.of(folder.ranks, ranks.rank, ranks.count, run.engine.ranks.hang_seconds)
    echo = ECHO_SECONDS if ranks.count > 1 else 0.0
    with (
        held(folder, ranks),
        Stop(echo_seconds=echo, quiet=not ranks.leads) as stop,
        heart,
        guard,
        speaking(folder, ranks),
    ):
        if ranks.leads:
            open_folder(run, folder, resume)
        with stop.at_once(f"stopped before training. {how_to_resume(folder)}"), nothing_begun(folder, resume, ranks):
            engine = Engine(run.engine, heart)
            heart.doing("reading its data", slow=True)
            tokenizer = tokenizer_of(run.model.path)
            data = open_data(run.data, tokenizer, run.objective.learns_from, seed=run.engine.seed)
            if ranks.leads:
                write_json(folder.data_report, data.report.to_dict())
                shutil.rmtree(folder.shared, ignore_errors=True)  # a killed run may have left it
            run.data.limits.check(data.report)
            heart.doing("loading its model", slow=True)
            models = run.objective.models(engine.builder(run.model, run.adapter))
            words = Words(tokenizer, data.template, run.data.tokens_per_pack, run.adapter, folder.shared, ranks)
            learning = run.objective.begin(models, words)
            session = prepare(run, folder, engine, data, learning)
            restore(session, allow_config_change)
            if ranks.leads:
                write_atomic(folder.run_yaml, to_yaml(run))  # a resumed run may have been allowed to change
        hooks = run.hooks if ranks.leads else []
        with closing(learning), Listeners(hooks, facts(run, folder, session)) as listeners:
            with saving_alone(session, listeners, folder.ranks):
                fit(session, listeners, stop)
            heart.doing(SAVING, slow=True)
            if ranks.leads:
                report_mixture(folder, session, data)
            artifact = save_artifact(run, folder, session, tokenizer, data)
            listeners.on_end(summary(session, artifact))
        return artifact


def held(folder: RunFolder, ranks: Ranks) -> AbstractContextManager[object]:
    """A run's folder, by the one process that writes it."""
    return Lock(folder.lock, purpose=f"the run {folder}") if ranks.leads else nullcontext()


def open_folder(run: TrainRun, folder: RunFolder, resume: bool) -> None:
    """Begin a run's folder, or note that it goes on, and clear what a killed process left half-written."""
    sweep(folder.path)
    sweep(folder.bad_batches)
    if not resume:
        folder.create(to_yaml(run))
    elif not folder.run_yaml.is_file():
        raise UserError(f"{folder}: holds no run to resume; leave --resume out to begin one")
    else:
        folder.record_environment()


@contextmanager
def nothing_begun(folder: RunFolder, resume: bool, ranks: Ranks) -> Iterator[None]:
    """A run that could not begin leaves its folder free for the mended recipe."""
    try:
        yield
    except UserError as error:
        if ranks.leads and not resume and not isinstance(error, Preempted):
            folder.forget()
        raise


def prepare(run: TrainRun, folder: RunFolder, engine: Engine, data: Data | StreamedData, learning: Learning) -> Session:
    """Everything that the loop works on, at its first step."""
    models = learning.models
    epochs = None if run.engine.steps else run.engine.epochs
    loader = data.loader(epochs=epochs, rank=engine.teams.number, ranks=engine.teams.num_shares)
    there = loader.num_steps and loader.num_steps * run.objective.steps_per_batch
    num_steps = min(count for count in (run.engine.steps, there) if count is not None)
    for line in run.data.mixture.told(data.held):
        log.info("%s", line)
    policy = models["policy"]
    log.info(trainable_report(policy.model))
    scales = lr_scales(run, models).__getitem__
    engine.before_dealing(policy)
    training = Training(run.engine, models, engine.dtype, num_steps, scales, engine.ranks)
    engine.prepare(policy, num_steps * data.tokens_per_step * run.objective.rows_made)
    made_of = identity(run, engine)
    if run.objective.precomputes:
        assert isinstance(data, Data)
        give_references(run.objective, engine, policy, data, cache_of(run) / "references", made_of)
    fixed = run.must_not_change() | {"tokens_sha256": data.keys}
    checkpoints = Checkpoints(folder.checkpoints, run.engine.save.limit, config=fixed, ranks=engine.ranks)
    if engine.ranks.leads:
        checkpoints.sweep()
    weights = partial(weights_writer, run, training)
    how, before, bad = how_to_resume(folder), baseline(run, made_of, data), folder.bad_batches
    room = Room(engine, training, pack_tokens=run.data.pack_tokens, plan=partial(planner_here, run, engine))
    return Session(engine, learning, training, room, loader, data.held_out, checkpoints, weights, bad, how, before)


def planner_here(run: TrainRun, engine: Engine) -> Planner:
    """The planner for the device that the run is on, which the weights are on already."""
    device = here(cpu=engine.device.type == "cpu")
    least = min(engine.ranks.gather(device.memory_bytes))  # all run the same, as the one that has least
    return planner_of(run, replace(device, memory_bytes=least), engine.num_ranks)[0]


def report_mixture(folder: RunFolder, session: Session, data: Data | StreamedData) -> None:
    """What each source has given in the end, beside what it holds."""
    realised = session.loader.realised(session.training.progress.cursor)
    write_json(folder.data_report, data.report.to_dict() | {"realised": realised})
    if len(realised) > 1:
        log.info("%s", "\n".join(lines(realised)))


def baseline(run: TrainRun, made_of: dict[str, Any] | None, data: Data | StreamedData) -> Baseline | None:
    """The loss that this model has before it learns from this data."""
    if made_of is None:
        return None
    more = {"objective": run.model_dump(mode="json", include={"objective"}), "held_out": data.config.held_out}
    return Baseline(cache_of(run) / "held_out", made_of | more | {"tokens": list(data.keys.items())})


def cache_of(run: TrainRun) -> Path:
    """Where what is worked out is kept."""
    return run.data.cache or cache_folder()


def how_to_resume(folder: RunFolder) -> str:
    """What to type after a stop."""
    return f"`danlu resume {quote(str(folder))}{again()}` goes on."


def restore(session: Session, allow_config_change: bool) -> None:
    """Become the newest whole checkpoint, if there is one."""
    found = session.checkpoints.latest_valid(allow_config_change=allow_config_change)
    if found is not None:
        session.training.restore(found)
        session.saved = (found.step, found.manifest.best)
        log.info("going on after step %d", found.step)


def facts(run: TrainRun, folder: RunFolder, session: Session) -> RunFacts:
    """The run as its hooks first see it."""
    progress = session.training.progress
    return RunFacts(folder.path, session.training.num_steps, progress.step, progress.measured_step, run.model_dump())


def lr_scales(run: TrainRun, models: Models) -> dict[str, float]:
    """The adapter's learning rate for each parameter, by the names that the optimiser knows."""
    names = [name for name, parameter in together(models).named_parameters() if parameter.requires_grad]
    return run.adapter.lr_scales(names)


def weights_writer(run: TrainRun, training: Training) -> Writer:
    """What writes everything learned so far; all processes ask for it together, and the first one writes."""
    wholes = training.wholes(everything=not run.adapter.lies_beside)
    return partial(write_weights, run, training.models, wholes)


def write_weights(run: TrainRun, models: Models, wholes: dict[str, Tensor], folder: Path) -> None:
    """Weights as plain transformers or peft reads them."""
    models["policy"].save(run.adapter, folder, under("policy.model.", wholes))
    if "critic" in models:
        models["critic"].save(folder, under("critic.", wholes))


def under(prefix: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of one model, by the names that it has for them."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def save_artifact(
    run: TrainRun, folder: RunFolder, session: Session, tokenizer: PreTrainedTokenizerFast, data: Data | StreamedData
) -> Path:
    """The trained model, or the best one if the recipe asks for it, with its tokenizer and template."""
    best = session.engine.ranks.first(session.checkpoints.pointer("best"))
    if run.engine.evaluate.keep_best and best is not None:
        session.training.take(Checkpoint.open(best))
    write = weights_writer(run, session.training)
    if session.engine.ranks.leads:
        with folder_at_once(folder.final, replace=True) as aside:
            write(aside)
            save_tokenizer(tokenizer, data.template, aside)
    return folder.final


def summary(session: Session, artifact: Path) -> Summary:
    """The run in one line."""
    progress = session.training.progress
    return Summary(
        step=progress.step,
        loss=progress.last_loss if progress.last_loss is not None else float("nan"),
        tokens=progress.tokens,
        trained_tokens=progress.trained_tokens,
        seconds=progress.seconds,
        eval_loss=progress.held_out_loss,
        skipped_steps=progress.skipped,
        artifact=artifact,
    )
