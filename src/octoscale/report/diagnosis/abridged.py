"""Many findings, told in few words: the first tensors of each rule and scaling, and how many more there are.

A sweep looks for the constants that fail, and most do, in nearly every tensor. Of those one tensor is told, after what
was found under all other scalings, which would else hide among them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from octoscale.report.data.validation import constants
from octoscale.report.diagnosis.finding import Finding
from octoscale.report.diagnosis.remedies import with_one_list


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one rule found under one scaling: at least one finding that is told, and how many are not."""

    findings: list[Finding]
    num_left: int

    @property
    def first(self) -> Finding:
        """The finding that is told first."""
        return self.findings[0]


def swept(findings: Iterable[Finding]) -> frozenset[str]:
    """The constant scalings among those of the findings, if there are several of them."""
    found = frozenset(each.scaling for each in findings if constants(each.scaling) is not None)
    return found if len(found) > 1 else frozenset()


def abridged(findings: Sequence[Finding], most: int) -> list[Told]:
    """The findings by severity, rule and scaling, in order; `most` of each are told, of a sweep's constant 1."""
    of_sweep = swept(findings)
    alike: dict[tuple[str, str, str, str], list[Finding]] = {}
    for each in findings:
        alike.setdefault((each.severity, each.rule, each.scaling, each.phase), []).append(each)
    told = []
    for those in alike.values():
        first = those[: 1 if those[0].scaling in of_sweep else most]
        told.append(Told(findings=with_one_list(first), num_left=len(those) - len(first)))
    return told
