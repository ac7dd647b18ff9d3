"""Static scales for activations: the largest amax that each layer's input has on a text.

    input_bias = calibrate(model, windows, Recipe.amax())

Larger values than on that text will saturate; dynamic activations have no such limit.
"""

import torch
from torch import Tensor, nn

from octoscale.conversion.convert import preview
from octoscale.numerics.formats import get_format
from octoscale.numerics.granularity import TENSOR
from octoscale.numerics.recipe import Recipe
from octoscale.numerics.scaling import Amax, Constant, amax_to_scale_bias
from octoscale.system.errors import UserError


@torch.no_grad()
def calibrate(model: nn.Module, windows: Tensor, recipe: Recipe) -> dict[str, int]:
    """Module -> scale_bias of its input, for the layers that `recipe` converts; the model is left as it was.

    windows: int64 [W, T]. A constant scaling needs no text: its bias is every layer's. ValueError for a layer whose
    input is never other than zero, or not finite.
    """
    operand = recipe.input
    if operand.rule.granularity != TENSOR.name:
        recipe.check_whole("a static scale of an activation")
    modules = [row.module for row in preview(model, recipe).converted]
    if isinstance(operand.rule, Constant):
        return dict.fromkeys(modules, operand.rule.bias)
    if not isinstance(operand.rule, Amax):
        raise UserError(f"static activations come from amax or cscale, not from {operand.rule}")
    largest = _largest_inputs(model, modules, windows)
    fmt, margin = get_format(operand.format), operand.rule.margin
    for module, amax in largest.items():
        if not (amax.isfinite() and amax > 0):
            raise UserError(f"{module}: the largest input on the calibration text is {amax.item()}: no scale fits it")
    return {module: int(amax_to_scale_bias(amax, fmt, margin)) for module, amax in largest.items()}


def _largest_inputs(model: nn.Module, modules: list[str], windows: Tensor) -> dict[str, Tensor]:
    """Module -> the largest magnitude of its input over all windows, float32."""
    largest = {module: torch.zeros(()) for module in modules}

    def note(module: str, x: Tensor) -> None:
        largest[module] = torch.maximum(largest[module], x.abs().amax().float())

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
        for name in modules
    ]
    try:
        for window in windows:
            model(input_ids=window[None], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return largest
