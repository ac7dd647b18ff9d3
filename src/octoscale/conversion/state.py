"""What an FP8 model knows beyond its parameters, to go on from a checkpoint: the amax histories of delayed scaling.

    state = fp8_state(model)           plain data, for a JSON file beside the weights
    load_fp8_state(model, state)       in a model that was converted with the same recipe

Amax and constant scales have no state: for them, the parameters and the optimizer are all there is.
"""

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from torch import nn

from octoscale.layers.linear import Fp8Linear
from octoscale.numerics.granularity import TENSOR
from octoscale.numerics.recipe import Recipe
from octoscale.numerics.scaling import Delayed
from octoscale.system.errors import UserError


def fp8_state(model: nn.Module) -> dict[str, Any]:
    """Recipe, and the amax histories by module and role. Closes the current step in them; {} without FP8 layers."""
    layers = _layers(model)
    if not layers:
        return {}
    histories = {layer.fp8.name.module: layer.fp8.runtime.save_histories() for layer in layers}
    return {
        "recipe": _described(layers[0].fp8.recipe),
        "histories": {name: past for name, past in histories.items() if past},
    }


def largest_state(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One state of several ranks' that recorded the same steps: of each step the largest amax, as if they were one.

    A rank may lack a layer that it never ran, an expert say, or its first steps: the last ones are the same steps.
    """
    pasts = [state.get("histories", {}) for state in states]
    histories: dict[str, dict[str, list[float]]] = {}
    for name in dict.fromkeys(name for past in pasts for name in past):
        of_layer = [past[name] for past in pasts if name in past]
        roles = dict.fromkeys(role for each in of_layer for role in each)
        histories[name] = {role: _largest([each[role] for each in of_layer if role in each]) for role in roles}
    return {**states[0], "histories": histories} if states[0] else {}


def _largest(pasts: Sequence[Sequence[float]]) -> list[float]:
    """Of each step, the last of all being the same one, the largest amax."""
    steps = zip_longest(*(reversed(past) for past in pasts), fillvalue=0.0)
    return [max(step) for step in steps][::-1]


def load_fp8_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Put back what `fp8_state` gave. ValueError, and nothing changed, for another recipe or other layers."""
    layers = {layer.fp8.name.module: layer for layer in _layers(model)}
    recipe = _described(next(iter(layers.values())).fp8.recipe) if layers else None
    if recipe != state.get("recipe"):
        raise UserError(f"this FP8 state is of another recipe: {state.get('recipe')}, and the model has {recipe}")
    unknown = sorted(set(state.get("histories", {})) - set(layers))
    if unknown:
        raise UserError(f"this FP8 state is of another model: it knows a layer {unknown[0]}")
    for name, past in state.get("histories", {}).items():
        layer = layers[name]
        rules = {role: layer.fp8.recipe.operand(role).rule for role in past}
        lengths = {role: rule.history for role, rule in rules.items() if isinstance(rule, Delayed)}
        layer.fp8.runtime.load_histories(past, lengths, layer.weight.device)


def _described(recipe: Recipe) -> str:
    """The recipe as text, without how its products are summed: that is free to change.

    One scale a tensor is not said, as by versions that knew no other.
    """
    text = re.sub(r", fast=[^,)]*, accumulate=[^,)]*", "", repr(recipe))
    return text.replace(f", granularity={TENSOR.name!r}, round=''", "")


def _layers(model: nn.Module) -> list[Fp8Linear]:
    return [module for module in model.modules() if isinstance(module, Fp8Linear)]
