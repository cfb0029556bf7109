"""What decides the numbers of a model before it learns, so that what was worked out with it can be found again."""

from typing import Any

import torch
import transformers

import danlu
from danlu.core.devices import device_name
from danlu.engine.engine import Engine
from danlu.models.load import base_of
from danlu.models.resolve import ADAPTER, resolve
from danlu.runs.train_run import TrainRun


def identity(run: TrainRun, engine: Engine) -> dict[str, Any] | None:
    """JSON: the model's files by size and time, its settings and its numbers; none where code from outside decides."""
    if run.allow_code:
        return None  # code from outside may change and keep its name
    folders = [resolve(path) for path in (run.model.path, *run.model.adapters)]
    folders += [base_of(folder) for folder in folders if (folder / ADAPTER).is_file()]
    files = sorted(file for folder in folders for file in folder.glob("*") if file.suffix in {".json", ".safetensors"})
    return {
        "settings": run.model_dump(mode="json", include={"model", "adapter"}) | {"seed": run.engine.seed},
        "files": [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files],
        "numbers": [run.data.tokens_per_pack, str(engine.dtype), device_name(engine.device)],
        "versions": [danlu.__version__, torch.__version__, transformers.__version__],
    }
