"""What a run noticed beside its casts, and a diagnosis needs: one line each in notes.jsonl.

    {"note": "modules", "fp8": [...], "frozen": [...], "kept": {name: reason}, "operands": {role: text}}
    {"note": "stale_weight", "step": 7, "module": "..."}                           its codes are of an older weight
    {"note": "frozen_weight", "step": 15, "module": "..."}                         it takes no gradient any more
    {"note": "loss_scale", "step": 0, "value": 512.0}                              what backward began with

Each line also says `phase` and `scaling`, as rows do. A stale weight's note is written once a cast, a frozen one's
once, a loss scale's when it changes. As with rows, an accelerator's numbers are read only when they are written, so
that nothing waits for them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from octoscale.runs.folder import RunFolder


class Notes:
    """The notes of one recorder. They wait in memory until `flush`."""

    def __init__(self, run: RunFolder, *, phase: str, scaling: str) -> None:
        self._run, self._of = run, {"phase": phase, "scaling": scaling}
        self._waiting: list[tuple[dict[str, Any], Tensor | None]] = []
        self._stale: set[str] = set()
        self._frozen: set[str] = set()
        self._last_scale: float | None = None

    def modules(
        self, fp8: Sequence[str], frozen: Sequence[str], kept: Mapping[str, str], operands: Mapping[str, str]
    ) -> None:
        """Note the FP8 layers, those whose weight is not trained, other linear layers with reasons, and the recipe.

        operands: role -> format and rule, as `e4m3fn amax:margin=3`.
        """
        self._frozen = set(frozen)
        content = {"fp8": list(fp8), "frozen": list(frozen), "kept": dict(kept), "operands": dict(operands)}
        self._waiting.append(({"note": "modules", **self._of, **content}, None))

    def fresh_weight(self, module: str) -> None:
        """A weight was cast anew."""
        self._stale.discard(module)

    def reused_weight(self, module: str, step: int, changed: Tensor) -> None:
        """A cast was used again. changed: bool, without dimensions; whether the weight is another one by now."""
        self._add({"note": "stale_weight", **self._of, "step": step, "module": module}, changed)

    def frozen_weight(self, module: str, step: int) -> None:
        """A weight takes no gradient; nothing is noted if that is known."""
        if module not in self._frozen:
            self._frozen.add(module)
            self._waiting.append(({"note": "frozen_weight", **self._of, "step": step, "module": module}, None))

    def loss_scale(self, step: int, value: Tensor) -> None:
        """Backward begins: `value`, one number, is the gradient of the loss itself, 1 without a loss scale."""
        self._add({"note": "loss_scale", **self._of, "step": step}, value.detach())

    def flush(self) -> None:
        """Write what waits. OSError if the disk is full; what was not written stays."""
        while self._waiting:
            row, value = self._waiting[0]
            if self._is_wanted(row, value):
                self._run.append_note(row)
            del self._waiting[0]

    def _add(self, row: dict[str, Any], value: Tensor) -> None:
        """Keep a note; on a CPU only if it will be written."""
        if value.device.type != "cpu":
            self._waiting.append((row, value))
        elif self._is_wanted(row, value):
            self._waiting.append((row, None))

    def _is_wanted(self, row: dict[str, Any], value: Tensor | None) -> bool:
        """Whether a note says something new; a loss scale gets its number here."""
        if value is None:
            return True
        if row["note"] == "stale_weight":
            is_new = bool(value.item()) and row["module"] not in self._stale
            self._stale |= {row["module"]} if is_new else set()
            return is_new
        row["value"] = scale = float(value.item())
        is_new = math.isfinite(scale) and scale != self._last_scale
        self._last_scale = scale if is_new else self._last_scale
        return is_new
