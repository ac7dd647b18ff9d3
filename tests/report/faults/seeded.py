"""Twelve faults, each planted in a small run that is otherwise clean, and what a diagnosis must name.

    expected = FAULTS["a NaN in one weight"](folder)        Expected(rule="nonfinite", module=..., role=..., step=...)

Each takes words for a variant: another layer, another step, another model, another size of the fault.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from models import tiny_gpt2, tiny_llama
from small_runs import at, infer, train
from torch import Tensor, nn

from octoscale import Constant, Operand, Recipe, quantize
from octoscale.runs.scales import read_scales

UP, DOWN = "model.layers.{}.mlp.up_proj", "model.layers.{}.mlp.down_proj"
OUT, QUERY = "model.layers.{}.self_attn.o_proj", "model.layers.{}.self_attn.q_proj"
GPT_IN, GPT_OUT, GPT_QKV = "transformer.h.{}.mlp.c_fc", "transformer.h.{}.mlp.c_proj", "transformer.h.{}.attn.c_attn"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a finding must say. role None: the fault is of the layer, not of one tensor."""

    rule: str
    module: str
    role: str | None
    step: int


def model_of(module: str) -> nn.Module:
    """The tiny model in which a module has this name."""
    return tiny_gpt2() if module.startswith("transformer") else tiny_llama()


def stale_cast(
    folder: Path, module: str = UP.format(1), step: int = 7, factor: float = 1.5, granularity: str = "tensor"
) -> Expected:
    """A write through `.data` between the passes of an inference, without forget_casts."""
    write = at(step, lambda model: model.get_submodule(module).weight.data.mul_(factor))
    infer(model_of(module), Recipe.amax(granularity=granularity), folder, plant=write)
    return Expected(rule="stale_weight", module=module, role="weight", step=step)


def pinned_cast(folder: Path, module: str = UP.format(1), step: int = 7, granularity: str = "tensor") -> Expected:
    """A cast that is kept over steps of the optimizer, as a broken cache keeps it."""

    def pin(model: nn.Module) -> None:
        state = model.get_submodule(module).fp8
        kept = state.runtime.weight[1]
        state.cast_weight = lambda *_, **__: kept

    train(model_of(module), Recipe.amax(granularity=granularity), folder, plant=at(step, pin))
    return Expected(rule="stale_weight", module=module, role="weight", step=step)


def wrong_scale(
    folder: Path, module: str = OUT.format(1), role: str = "input", of: str = DOWN.format(0), step: int = 0
) -> Expected:
    """A layer that takes the scale of another one's tensor: that layer's, as it is in the first step."""
    recipe, model = Recipe.amax(), model_of(module)
    bias = first_scale(model, recipe, of, role)

    def take(model: nn.Module) -> None:
        operand = Operand(format=recipe.operand(role).format, rule=Constant(bias))
        state = model.get_submodule(module).fp8
        state.recipe = replace(recipe, **{role: operand})
        state.runtime.weight = (None, None)

    train(model, recipe, folder, plant=at(step, take))
    return Expected(rule="foreign_scale", module=module, role=role, step=step)


def first_scale(model: nn.Module, recipe: Recipe, module: str, role: str) -> int:
    """The scale of a tensor in the first step of a training, which a copy of the model takes."""
    with TemporaryDirectory() as folder:
        rows = read_scales(train(deepcopy(model), recipe, Path(folder) / "run", steps=1))
    return rows.filter(module=module, role=role)["scale_bias"][0]


def growing_outlier(
    folder: Path, module: str = DOWN.format(1), step: int = 10, factor: float = 1.5, granularity: str = "tensor"
) -> Expected:
    """One channel of a layer's input that grows by a factor each step: SwiGLU's product."""
    model, steps = model_of(module), [0]

    def grow(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        scale = torch.ones_like(args[0][0, 0])
        scale[5] = 8 * factor ** max(steps[0] - step + 1, 0)
        return (args[0] * scale,)

    model.get_submodule(module).register_forward_pre_hook(grow)
    train(model, Recipe.amax(granularity=granularity), folder, plant=lambda _, now: steps.__setitem__(0, now))
    return Expected(rule="outlier_growth", module=module, role="input", step=step)


def growing_weights(folder: Path, layer: int = 1, step: int = 8, factor: float = 1.3) -> Expected:
    """A channel of gate and up that grows in both weights: their product does by the square."""

    @torch.no_grad()
    def grow(model: nn.Module, now: int) -> None:
        mlp = model.model.layers[layer].mlp
        for weight in (mlp.gate_proj.weight, mlp.up_proj.weight):
            weight[5] *= factor if now >= step else 1.0

    train(tiny_llama(), Recipe.amax(), folder, plant=grow)
    return Expected(rule="outlier_growth", module=DOWN.format(layer), role="input", step=step)


def loss_scale_twice(
    folder: Path, scale: float = 512.0, step: int = 12, first: str = DOWN.format(1), outside: bool = False
) -> Expected:
    """A loss that is multiplied by the loss scale a second time, from a step on."""
    scales = lambda now: scale ** (2 if now >= step else 1)  # noqa: E731
    train(model_of(first), Recipe.amax(), folder, loss_scale=scales, outside=outside)
    return Expected(rule="loss_scale_twice", module=first, role="grad_output", step=step)


def skipped_module(folder: Path, module: str = QUERY.format(1), how: str = "recipe", step: int = 0) -> Expected:
    """A layer that is kept out of FP8, or that is not called."""
    model = model_of(module)
    if how == "recipe":
        train(model, Recipe.amax(skip=[module]), folder)
        return Expected(rule="not_fp8", module=module, role=None, step=0)

    def bypass(model: nn.Module) -> None:
        layer = model.get_submodule(module)
        layer.forward = lambda x: nn.functional.linear(x, layer.weight)

    train(model, Recipe.amax(), folder, plant=at(step, bypass))
    return Expected(rule="never_ran", module=module, role=None, step=step)


def nan_in_weight(
    folder: Path, module: str = UP.format(0), step: int = 9, value: float = float("nan"), granularity: str = "tensor"
) -> Expected:
    """One value of a weight, written where torch counts it."""

    @torch.no_grad()
    def write(model: nn.Module) -> None:
        model.get_submodule(module).weight[3, 5] = value

    train(model_of(module), Recipe.amax(granularity=granularity), folder, plant=at(step, write))
    return Expected(rule="nonfinite", module=module, role="weight", step=step)


def low_constant(
    folder: Path, module: str = UP.format(1), role: str = "weight", shrink: int = 12, step: int = 0
) -> Expected:
    """A constant for all, and one layer whose weight or input is 2**shrink smaller than those of the others."""
    model = model_of(module)

    @torch.no_grad()
    def shrink_weight(model: nn.Module) -> None:
        model.get_submodule(module).weight *= 2.0**-shrink

    if role == "weight":
        infer(model, Recipe.cscale(4), folder, plant=at(step, shrink_weight))
    else:
        layer = model.get_submodule(module)
        layer.register_forward_pre_hook(lambda _, args: (args[0] * 2.0**-shrink,))
        infer(model, Recipe.cscale(4), folder)
    return Expected(rule="flushes", module=module, role=role, step=step)


def high_for_gradients(folder: Path, bias: int = 26, module: str = DOWN.format(1)) -> Expected:
    """Gradients under a constant that fits none of them."""
    recipe = Recipe.cscale_by_role(weight=4, input=2, grad_output=bias)
    train(model_of(module), recipe, folder)
    return Expected(rule="saturates", module=module, role="grad_output", step=0)


def jump_under_delayed(
    folder: Path, module: str = OUT.format(1), step: int = 12, factor: float = 64.0, history: int = 16
) -> Expected:
    """An input that is larger by a factor from one step to the next."""
    model, steps = model_of(module), [0]
    hook = lambda _, args: (args[0] * (factor if steps[0] >= step else 1.0),)  # noqa: E731
    model.get_submodule(module).register_forward_pre_hook(hook)
    train(model, Recipe.delayed(history=history), folder, plant=lambda _, now: steps.__setitem__(0, now))
    return Expected(rule="delayed_lags", module=module, role="input", step=step)


def zero_gradients(
    folder: Path, module: str = DOWN.format(0), step: int = 0, how: str = "zeros", granularity: str = "tensor"
) -> Expected:
    """A layer whose output's gradient is multiplied by zero, or whose weight gets none and stands still."""
    model, steps = model_of(module), [0]
    layer = model.get_submodule(module)
    if how == "zeros":

        def cut(_: nn.Module, __: object, output: Tensor) -> None:
            if output.requires_grad and steps[0] >= step:
                output.register_hook(torch.zeros_like)

        layer.register_forward_hook(cut)
        train(model, Recipe.amax(granularity=granularity), folder, plant=lambda _, now: steps.__setitem__(0, now))
        return Expected(rule="zero_gradients", module=module, role="grad_output", step=step)
    if how == "frozen":
        layer.weight.requires_grad_(step > 0)
        train(
            model,
            Recipe.amax(granularity=granularity),
            folder,
            plant=at(step, lambda _: layer.weight.requires_grad_(False)),
        )
        return Expected(rule="frozen_weight", module=module, role="weight", step=step)
    layer.weight.register_hook(lambda grad: grad * 0 if steps[0] >= step else grad)
    train(
        model, Recipe.amax(granularity=granularity), folder, decay=0.0, plant=lambda _, now: steps.__setitem__(0, now)
    )
    return Expected(rule="idle_weight", module=module, role="weight", step=step)


def cast_twice(
    folder: Path,
    module: str = DOWN.format(1),
    role: str = "input",
    how: str = "values",
    step: int = 0,
    granularity: str = "tensor",
    **words,
) -> Expected:
    """A layer whose values were cast before, or that is called twice a pass."""
    model, steps = model_of(module), [0]
    layer = model.get_submodule(module)
    if how == "calls":
        layer.register_forward_pre_hook(lambda each, args: (args[0] + 0 * each.forward(args[0]).sum(),))
    elif role == "input":
        layer.register_forward_pre_hook(lambda _, args: (_through_fp8(args[0]) if steps[0] >= step else args[0],))
    else:
        layer.register_full_backward_pre_hook(lambda _, grads: (_through_fp8(grads[0]),))
    train(model, Recipe.amax(granularity=granularity), folder, plant=lambda _, now: steps.__setitem__(0, now), **words)
    return Expected(rule="cast_twice", module=module, role=role, step=step)


def _through_fp8(x: Tensor) -> Tensor:
    """Values on the grid of e4m3fn, with x's gradient."""
    rounded = quantize(x.detach(), "e4m3fn", Recipe.amax().input.rule).dequantize(torch.float32).to(x.dtype)
    return x + (rounded - x).detach()


def flushed_inputs(
    folder: Path, module: str = DOWN.format(1), how: str = "constant", size: int = 12, granularity: str = "tensor"
) -> Expected:
    """Inputs of which most become zero: too small for a constant, or beside an outlier under amax."""
    model = model_of(module)

    def change(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        if how == "constant":
            return (args[0] * 2.0**-size,)
        scale = torch.ones_like(args[0][0, 0])
        scale[3] = 2.0**size
        return (args[0] * scale,)

    model.get_submodule(module).register_forward_pre_hook(change)
    recipe = Recipe.cscale_by_role(weight=6, input=3) if how == "constant" else Recipe.amax(granularity=granularity)
    train(model, recipe, folder)
    return Expected(rule="flushes", module=module, role="input", step=0)


#: The twelve, as they are counted.
FAULTS: dict[str, Callable[..., Expected]] = {
    "a stale cast": stale_cast,
    "a wrong layer's scale": wrong_scale,
    "a SwiGLU outlier that grows": growing_outlier,
    "a loss scale applied twice": loss_scale_twice,
    "a skipped module": skipped_module,
    "a NaN in one weight": nan_in_weight,
    "a constant too low for one layer": low_constant,
    "a constant too high for gradients": high_for_gradients,
    "delayed scaling with a jump": jump_under_delayed,
    "zero gradients of a frozen layer": zero_gradients,
    "a layer cast twice": cast_twice,
    "flushed inputs of down_proj": flushed_inputs,
}

#: The same faults elsewhere, later, smaller, or planted in another way.
VARIANTS: list[tuple[Callable[..., Expected], dict[str, object]]] = [
    (stale_cast, {"module": GPT_OUT.format(0), "step": 2, "factor": 1.001}),
    (pinned_cast, {}),
    (pinned_cast, {"module": GPT_QKV.format(1), "step": 20}),
    (wrong_scale, {"module": GPT_IN.format(1), "role": "weight", "of": GPT_OUT.format(0), "step": 11}),
    (wrong_scale, {"module": QUERY.format(0), "role": "grad_output", "step": 5}),
    (growing_outlier, {"module": GPT_OUT.format(0), "step": 3, "factor": 1.3}),
    (growing_outlier, {"module": OUT.format(0), "step": 15, "factor": 2.0}),
    (loss_scale_twice, {"scale": 16.0, "step": 20, "first": GPT_OUT.format(1)}),
    (growing_weights, {}),
    (loss_scale_twice, {"scale": 32768.0, "step": 0}),
    (loss_scale_twice, {"step": 17, "outside": True}),
    (skipped_module, {"module": GPT_IN.format(0), "how": "recipe"}),
    (skipped_module, {"module": UP.format(0), "how": "call"}),
    (skipped_module, {"module": UP.format(0), "how": "call", "step": 14}),
    (nan_in_weight, {"module": GPT_QKV.format(1), "step": 25, "value": float("inf")}),
    (low_constant, {"module": GPT_OUT.format(0), "shrink": 9}),
    (low_constant, {"module": OUT.format(0), "role": "input", "shrink": 10}),
    (low_constant, {"module": DOWN.format(0), "step": 4}),
    (high_for_gradients, {"bias": 30, "module": GPT_OUT.format(1)}),
    (jump_under_delayed, {"module": GPT_OUT.format(1), "step": 20, "factor": 8.0, "history": 4}),
    (jump_under_delayed, {"module": DOWN.format(0), "step": 3, "factor": 1024.0}),
    (zero_gradients, {"module": GPT_OUT.format(1), "step": 13}),
    (zero_gradients, {"module": UP.format(1), "how": "frozen"}),
    (zero_gradients, {"module": UP.format(1), "how": "frozen", "step": 15}),
    (zero_gradients, {"module": UP.format(1), "how": "still"}),
    (cast_twice, {"module": GPT_OUT.format(0), "step": 8}),
    (cast_twice, {"module": OUT.format(1), "autocast": True, "steps": 40}),
    (cast_twice, {"module": UP.format(0), "role": "grad_output"}),
    (cast_twice, {"module": GPT_IN.format(1), "how": "calls"}),
    (flushed_inputs, {"module": DOWN.format(0), "how": "outlier", "size": 18}),
    (flushed_inputs, {"module": DOWN.format(1), "size": 8}),
]
