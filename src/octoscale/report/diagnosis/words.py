"""A diagnosis as a text for the terminal: first what there was to look at, then the findings, rule by rule.

Names come from files: each is one line of text, whatever is in it. JSON has all of them whole.
"""

from itertools import groupby

from octoscale.report.diagnosis.abridged import Told, abridged
from octoscale.report.diagnosis.finding import Finding, count
from octoscale.report.diagnosis.rules import DAMAGED, RULES, Diagnosis
from octoscale.system.printable import one_line

#: Tensors that are told of one rule and scaling, and characters of a name, before the rest is left to --json.
_MOST_TENSORS, _LONGEST = 5, 200

_ROLES = {"weight": "weight", "input": "input", "grad_output": "gradient", None: "the layer"}


def told(diagnosis: Diagnosis) -> str:
    """The whole text."""
    lines = [f"{one_line(str(diagnosis.path), _LONGEST)}:"]
    lines += [f"  {one_line(line, 2 * _LONGEST)}" for line in diagnosis.there]
    lines += [f"  missing: {one_line(line, 2 * _LONGEST)}" for line in diagnosis.missing]
    groups = abridged(diagnosis.findings, _MOST_TENSORS)
    for (severity, rule), of_rule in groupby(groups, key=lambda each: (each.first.severity, each.first.rule)):
        what = "cannot be read" if rule == DAMAGED else RULES[rule][1]
        lines += ["", f"{severity}: {what} ({rule})", *_of_rule(list(of_rule))]
    if not diagnosis.findings:
        lines += ["", f"nothing was found by {count(len(RULES), 'rule')}"]
    return "\n".join(lines)


def _of_rule(told: list[Told]) -> list[str]:
    """The tensors that are told, each with its evidence; what to do after the last that has one remedy."""
    lines = []
    findings = [(found, each.num_left if found is each.findings[-1] else 0) for each in told for found in each.findings]
    for remedy, alike in groupby(findings, key=lambda pair: pair[0].remedy):
        for found, num_left in alike:
            lines += [f"  {_where(found)}"] if found.rule != DAMAGED else []
            lines.append(f"    {one_line(found.evidence, 4 * _LONGEST)}")
            lines += [f"    and {num_left:,} more: --json"] if num_left > 0 else []
        lines.append(f"    what to do: {one_line(remedy, (2 + _MOST_TENSORS) * _LONGEST)}")
    return lines


def _where(found: Finding) -> str:
    """The tensor, the step, and the group if it has a name."""
    module = "the model" if found.module is None else one_line(found.module, _LONGEST)
    parts = [module, *([_ROLES[found.role]] if found.module is not None else [])]
    parts += [] if found.step is None else [f"since step {found.step}"]
    group = found.scaling + (f" ({found.phase})" if found.phase else "")
    return ", ".join(parts) + (f"; {one_line(group, _LONGEST)}" if group else "")
