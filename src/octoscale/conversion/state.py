"""What an FP8 model knows beyond its parameters, to go on from a checkpoint: the amax histories of delayed scaling.

    state = fp8_state(model)           plain data, for a JSON file beside the weights
    load_fp8_state(model, state)       in a model that was converted with the same recipe

Amax and constant scales have no state: for them, the parameters and the optimizer are all there is.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from octoscale.layers.linear import Fp8Linear
from octoscale.numerics.scaling import Delayed
from octoscale.system.errors import UserError


def fp8_state(model: nn.Module) -> dict[str, Any]:
    """Recipe, and the amax histories by module and role. Closes the current step in them; {} without FP8 layers."""
    layers = _layers(model)
    if not layers:
        return {}
    histories = {layer.fp8.name.module: layer.fp8.runtime.save_histories() for layer in layers}
    return {"recipe": repr(layers[0].fp8.recipe), "histories": {name: past for name, past in histories.items() if past}}


def largest_state(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One state of several ranks' that recorded the same steps: of each step the largest amax, as if they were one."""
    first = states[0]
    histories: dict[str, dict[str, list[float]]] = {}
    for name, past in first.get("histories", {}).items():
        of_all = {role: [state["histories"][name][role] for state in states] for role in past}
        histories[name] = {role: [max(step) for step in zip(*each, strict=True)] for role, each in of_all.items()}
    return {**first, "histories": histories} if first else {}


def load_fp8_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Put back what `fp8_state` gave. ValueError, and nothing changed, for another recipe or other layers."""
    layers = {layer.fp8.name.module: layer for layer in _layers(model)}
    recipe = repr(next(iter(layers.values())).fp8.recipe) if layers else None
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


def _layers(model: nn.Module) -> list[Fp8Linear]:
    return [module for module in model.modules() if isinstance(module, Fp8Linear)]
