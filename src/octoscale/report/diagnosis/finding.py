"""A finding: one thing that is wrong with one tensor of a run, since which step, and what to do."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from octoscale.numerics.formats import Role

#: error: results are wrong, or will be. warning: values are lost. note: nothing is lost, but something is not as usual.
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule found in the records of a run.

    module, role: the tensor; None where it is no single module, or no single tensor of it. step: the first one; None
    where it has none. evidence: the numbers, in words; numbers: the same as data. remedy: what to paste or to do.
    phase, scaling: which records of the run it is about.
    """

    rule: str
    severity: Severity
    module: str | None
    role: Role | None
    step: int | None
    evidence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    remedy: str
    phase: str = ""
    scaling: str = ""

    def to_json(self) -> dict[str, Any]:
        """The finding as plain data."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: null for infinity and NaN."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def count(number: int, what: str, whats: str | None = None) -> str:
    """A number and its unit: 1 step, 2 steps."""
    return f"{number:,} {what if number == 1 else whats or what + 's'}"
