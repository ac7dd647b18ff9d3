"""What the rules of a diagnosis find in rows and notes that are worked out by hand."""

from written_runs import frame, row

from octoscale.report.diagnosis.rules import ask
from octoscale.report.diagnosis.tensors import groups_of


def found(*rows, notes=(), metrics=(), **columns):
    """What all rules find in some rows of one group."""
    table = frame(*rows).with_columns(**columns)
    return [finding for group in groups_of(table, list(notes), list(metrics), {}) for finding in ask(group)]


def of(rule, findings):
    return [(each.module, each.role, each.step) for each in findings if each.rule == rule]


def steps(num, **changes):
    return [row(step=step, amax=20.0 + step / 97, **changes) for step in range(num)]


def note(**content):
    return {
        "phase": "validate",
        "scaling": "amax",
        "note": "modules",
        "frozen": [],
        "kept": {},
        "operands": {},
    } | content
