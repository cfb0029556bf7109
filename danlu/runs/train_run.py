"""The recipe of a training run, and which of its settings a resumed run must keep."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import model_validator

from danlu.core.parts import Config
from danlu.data.config import DataConfig
from danlu.data.stream.data import NO_STEPS
from danlu.engine.config import EngineConfig
from danlu.engine.hooks import base as listening
from danlu.engine.hooks.console import Console
from danlu.engine.hooks.metrics_file import MetricsFile
from danlu.engine.hooks.plot import Plot
from danlu.engine.hooks.samples import Samples
from danlu.engine.parallel.base import parallels
from danlu.models.adapters import adapters
from danlu.models.adapters.base import Adapter
from danlu.models.adapters.lora import Lora
from danlu.models.load import ModelConfig
from danlu.models.quantizers.base import quantizers
from danlu.objectives import objectives
from danlu.objectives.base import Objective


class TrainRun(Config):
    """A model, data and an objective."""

    model: ModelConfig
    """what is trained"""
    adapter: Annotated[Adapter, adapters] = Lora()
    """which of its weights learn"""
    data: DataConfig
    """what it learns from"""
    objective: Annotated[Objective, objectives]
    """what is optimised"""
    engine: EngineConfig = EngineConfig()
    """how it trains"""
    hooks: list[Annotated[listening.Hook, listening.hooks]] = [Console(), MetricsFile(), Plot(), Samples()]
    """who is told about it"""
    folder: Path | None = None
    """where the run is written; runs/NAME of the recipe if not given"""
    allow_code: bool = False
    """parts from outside danlu may be named; their code runs on this machine"""

    @model_validator(mode="after")
    def _streams_have_no_epochs(self) -> Self:
        if self.data.streaming is not None and self.engine.steps is None:
            raise ValueError(NO_STEPS)
        return self

    @model_validator(mode="after")
    def _quantized_weights_do_not_learn(self) -> Self:
        why = self.adapter.needs_whole_weights
        if self.model.quantizer is not None and why:
            names = quantizers.name_of(self.model.quantizer), adapters.name_of(self.adapter)
            raise ValueError(f"model.quantizer {names[0]}: adapter {names[1]} {why}; use plain lora, or no quantizer")
        return self

    @model_validator(mode="after")
    def _objective_and_adapter_go_together(self) -> Self:
        given = {"streaming": self.data.streaming is not None, "quantized": self.model.quantizer is not None}
        why = self.objective.refusal(self.adapter, **given)
        if why:
            names = objectives.name_of(self.objective), adapters.name_of(self.adapter)
            raise ValueError(f"objective {names[0]} with adapter {names[1]}: {why}")
        return self

    @model_validator(mode="after")
    def _answers_are_written_by_each_alone(self) -> Self:
        if self.engine.parallel.context > 1 and self.objective.writes:
            name = objectives.name_of(self.objective)
            raise ValueError(f"engine.parallel.context: processes that read together do not write; {name} wants 1")
        return self

    @model_validator(mode="after")
    def _whole_steps_are_compared_by_all_alike(self) -> Self:
        parallel = self.engine.parallel
        waits = parallel.in_step or parallel.context > 1
        if self.data.streaming is not None and self.objective.compares_steps and waits:
            names = objectives.name_of(self.objective), parallels.name_of(parallel)
            raise ValueError(
                f"objective {names[0]} compares the rows of a step, of which a stream gives each process its own, and "
                f"under {names[1]} all must compute alike; say engine.parallel: ddp, or leave data.streaming out"
            )
        return self

    def must_not_change(self) -> dict[str, Any]:
        """What decides the numbers. Workers, memory, speed and reporting may differ in a resumed run."""
        tree = self.model_dump(mode="json")
        for key in ("hooks", "folder", "allow_code"):
            del tree[key]
        for key in (
            "device",
            "compile",
            "gradient_checkpointing",
            "offload_activations",
            "mlp_chunk",
            "save",
            "parallel",
            "ranks",
        ):
            del tree["engine"][key]
        for key in ("workers", "cache", "trust_times", "limits", *(["pack_tokens"] if self.data.batch.rows else [])):
            del tree["data"][key]
        if tree["data"]["streaming"]:
            del tree["data"]["streaming"]["prefetch"]
        return tree
