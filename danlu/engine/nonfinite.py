"""A loss or gradient that is not a number: which step, batch and rows it came from, kept for whoever looks into it."""

import json
from itertools import count
from pathlib import Path

from safetensors.torch import save_file

from danlu.core.files import folder_at_once
from danlu.data.packing import Pack


class NonFinite(Exception):
    """What was not finite, in which of a step's packs (None: the summed gradient), before the optimiser saw it."""

    def __init__(self, what: str, packs: list[Pack], number: int | None = None) -> None:
        super().__init__(what)
        self.what, self.packs, self.number = what, packs, number

    @property
    def suspects(self) -> list[Pack]:
        """The pack that did it, or all of the step's when only their sum tells."""
        return self.packs if self.number is None or not self.packs else [self.packs[self.number]]

    @property
    def rows(self) -> list[str]:
        """file:row of every row under suspicion."""
        return [pack.segments[row.start].where for pack in self.suspects for row in pack.rows]

    def describe(self, step: int) -> str:
        """One sentence for people."""
        where = "the gradient of the whole batch" if self.number is None else f"micro-batch {self.number}"
        rows = self.rows
        if not rows:  # another process has them
            return f"step {step}: {self.what} in {where}"
        more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
        return f"step {step}: {self.what} in {where}; rows {', '.join(rows[:8])}{more}"

    def keep(self, folder: Path, step: int) -> Path:
        """Write the suspected packs beside the run, once for the same rows of a step."""
        final = folder / f"step-{step:06d}"
        for number in count(2):
            if not final.exists():
                break
            if json.loads((final / "rows.json").read_text())["rows"] == self.rows:
                return final  # a resumed run met it again
            final = folder / f"step-{step:06d}-{number}"  # after a rollback, the same step met other rows
        with folder_at_once(final) as aside:
            for number, pack in enumerate(self.suspects):
                names = ("input_ids", "positions", "targets", "weights", "cu_seqlens")
                save_file(
                    {name: getattr(pack, name).cpu().contiguous() for name in names},
                    aside / f"pack-{number}.safetensors",
                )
            (aside / "rows.json").write_text(json.dumps({"what": self.what, "rows": self.rows}, ensure_ascii=False))
        return final
