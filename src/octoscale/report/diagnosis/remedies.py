"""What to do, as texts that octoscale takes: a line of a recipe file, a scaling for the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from octoscale.numerics.formats import ROLES, Role
from octoscale.numerics.recipe import Recipe, parse_scaling, with_word
from octoscale.numerics.recipe_file import quoted
from octoscale.numerics.scaling import Amax, Constant, Rule
from octoscale.report.diagnosis.finding import Finding
from octoscale.report.diagnosis.tensors import Group

#: How to go on with other settings, for --resume takes none but those that a training began with.
FROM_CHECKPOINT = "octoscale train RUN/checkpoints/checkpoint-N --out NEW"


def keep_out(*modules: str) -> str:
    """The line of a recipe file that keeps modules in high precision."""
    return f"skip = [{', '.join(map(quoted, modules))}]"


def scaling_text(group: Group, changed: Mapping[Role, Rule]) -> str | None:
    """The group's scaling with other rules for some roles, as --scaling takes it; None if no text says that."""
    rules = {role: changed.get(role) or group.rule(role) for role in ROLES}
    weight, input, grad_output = rules["weight"], rules["input"], rules["grad_output"]
    if weight is not None and weight == input == grad_output:
        text = str(weight)
    elif isinstance(weight, Constant) and isinstance(input, Constant) and isinstance(grad_output, Constant):
        text = f"cscale:weight={weight.bias},input={input.bias},grad_output={grad_output.bias}"
    elif isinstance(weight, Constant) and isinstance(input, Constant) and grad_output == Amax():
        text = f"cscale:weight={weight.bias},input={input.bias}"
    elif all(isinstance(rule, Amax) for rule in rules.values()):
        text = ",".join(f"{role}={rule}" for role, rule in rules.items())
    else:
        return None
    is_fnuz = any(name.endswith("fnuz") for name in group.tensors["format"].unique())
    text = with_word(text, "formats=fnuz") if is_fnuz else text
    recipe, before = parse_scaling(text), group.recipe
    if not isinstance(recipe, Recipe) or before is None:
        return text
    return replace(recipe, name=text).summed(fast=before.fast, accumulate=before.accumulate).name


def with_one_list(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, those with one remedy together; where it keeps each one's module out, it names all of them.

    A recipe file has the key skip once.
    """
    alike: dict[str, list[Finding]] = {}
    for found in findings:
        alike.setdefault(_beside_list(found), []).append(found)
    return [found for words, those in alike.items() for found in _with_all(words, those)]


def _with_all(words: str, findings: Sequence[Finding]) -> list[Finding]:
    """Findings of one remedy, each with the modules of all."""
    modules = dict.fromkeys(found.module for found in findings if found.module is not None)
    remedy = words + keep_out(*modules)
    return [found if found.remedy == words else replace(found, remedy=remedy) for found in findings]


def _beside_list(found: Finding) -> str:
    """What a remedy says before the line that keeps its module out."""
    return found.remedy if found.module is None else found.remedy.removesuffix(keep_out(found.module))
