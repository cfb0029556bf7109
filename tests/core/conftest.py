"""A small package with a folder of parts, as danlu's own folders are, and a recipe over it."""

import sys
import textwrap
from importlib import import_module
from types import SimpleNamespace

import pytest

SHOP = {
    "shop/__init__.py": "",
    "shop/losses/__init__.py": """
        from danlu.core.parts import Folder
        from shop.losses.base import Loss
        losses = Folder(__name__, Loss)
    """,
    "shop/losses/base.py": """
        from danlu.core.parts import Part
        class Loss(Part):
            def of(self, x): raise NotImplementedError
    """,
    "shop/losses/dpo.py": """
        from shop.losses.base import Loss
        class DPO(Loss):
            beta: float = 0.1
            "how strongly the policy is held to the reference"
            steps: int = 10
            "how many"
            def of(self, x): return self.beta * x
    """,
    "shop/losses/hinge.py": """
        from danlu.core.parts import Config
        from shop.losses.base import Loss
        class Slope(Config):
            left: float
            "below the margin"
        class Hinge(Loss):
            margin: float
            "how far apart"
            slope: Slope = Slope(left=1.0)
            "on either side"
    """,
    "shop/losses/exotic.py": "import bitsandbytes_of_another_planet",
    "shop/losses/_draft.py": "",
    "shop/run.py": """
        from typing import Annotated
        from danlu.core.parts import Config
        from shop.losses import losses
        from shop.losses.base import Loss
        class Model(Config):
            path: str
            "where the weights are"
        class Run(Config):
            "One run."
            model: Model = Model(path="tiny")
            "what is trained"
            loss: Annotated[Loss, losses] = "dpo"
            "what is optimised"
            extra_losses: list[Annotated[Loss, losses]] = []
            "and more of it"
            lr: float = 1e-3
            "the step size"
            epochs: int = 1
            "passes over the data"
            note: str = ""
            "what people should know"
            allow_code: bool = False
            "whether code from outside may run"
    """,
    "outside.py": """
        from shop.losses.base import Loss
        class Mine(Loss):
            tau: float = 2.0
            "mine"
            def of(self, x): return self.tau + x
        class Other(Loss):
            pass
    """,
}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """`shop.Run` is a recipe's config, `shop.losses` the folder, `shop.root` where the files are."""
    for place, text in SHOP.items():
        path = tmp_path / "site" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path / "site")
    run = import_module("shop.run")
    yield SimpleNamespace(Run=run.Run, losses=run.losses, Loss=run.Loss, root=tmp_path / "site")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("shop", "outside")]:
        del sys.modules[name]
