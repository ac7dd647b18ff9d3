"""What convert promises of a model's layers: each that it lists has run, multiplies what it should, and can go back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import oracle
import torch
from table import Family
from torch import Tensor, nn

import octoscale
from octoscale import Recipe
from octoscale.conversion.convert import ConversionReport
from octoscale.layers.linear import Fp8Linear

E4, E5 = "e4m3fn", "e5m2"


@dataclass(frozen=True)
class Call:
    """One call of an FP8 layer: its operands and result as they were then, and the gradient that came back."""

    layer: Fp8Linear
    input: Tensor
    output: Tensor
    grads: list[Tensor]

    @property
    def weight_NK(self) -> Tensor:
        weight = self.layer.weight.detach()
        return weight.t() if self.layer.fp8.is_conv1d else weight


def first_tensors(output: Any) -> list[Tensor]:
    """The tensors of floats in a model's output, however it nests them."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else []
    return [tensor for part in parts for tensor in first_tensors(part)]


def ask(model: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    """What a model answers; some draw random numbers while they do."""
    torch.manual_seed(1)
    return first_tensors(model(**inputs))


def prepare_gradients(family: Family, model: Any) -> None:
    """No cache, into which some write in place what backward would need; training mode where it must be."""
    model.config.use_cache = False
    model.train(family.has_gradients_in_training_only)


@contextmanager
def calls_of(model: nn.Module) -> Iterator[list[Call]]:
    """The calls of FP8 layers within the block."""
    calls: list[Call] = []

    def note(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        call = Call(layer, args[0].detach().clone(), output.detach().clone(), [])
        if output.requires_grad:
            output.register_hook(lambda grad: call.grads.append(grad.detach().clone()))
        calls.append(call)

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, Fp8Linear)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def converted(family: Family, dtype: torch.dtype = torch.float32) -> tuple[Any, ConversionReport]:
    model = family.build(dtype)
    return model, octoscale.convert(model, Recipe.amax())


def check_convert(family: Family) -> None:
    """The report names every module that owns a matrix; each layer that it calls FP8 is one, and is called."""
    model, report = converted(family)
    rows = {row.module: row for row in report.modules}
    matrices = {n.rpartition(".")[0] for n, p in model.named_parameters() if p.ndim >= 2}
    assert matrices <= rows.keys(), f"not reported: {sorted(matrices - rows.keys())}"
    for row in report.modules:
        assert isinstance(model.get_submodule(row.module), Fp8Linear) == row.converted, row
        assert row.reason, row
    with torch.no_grad(), calls_of(model) as calls:
        outputs = ask(model, family.inputs(model))
    assert all(out.isfinite().all() for out in outputs[:1])
    called = {call.layer.weight for call in calls}  # tied layers take turns
    idle = [row.module for row in report.converted if model.get_submodule(row.module).weight not in called]
    assert not idle, f"FP8 by the report, and never called: {idle}"


def check_forward(family: Family) -> None:
    """Each layer's output is the product of the codes of what it was given, in float32 and in bfloat16."""
    for dtype in {torch.float32, family.dtype}:
        model, _ = converted(family, dtype)
        with torch.no_grad(), calls_of(model) as calls:
            ask(model, family.inputs(model))
        for call in calls:
            x, w = oracle.values(oracle.rows(call.input), E4), oracle.values(call.weight_NK, E4)
            exact = oracle.product(x, w.t(), call.layer.bias)
            found = oracle.rows(call.output)
            assert exact.contains(found), f"{call.layer.fp8.name.module} {dtype}: off by {exact.worst(found):.3g}"


def check_backward(family: Family) -> None:
    """Gradients are finite, and those of weights and inputs are the products of the codes."""
    model, _ = converted(family)
    prepare_gradients(family, model)
    with calls_of(model) as calls:
        outputs = [out for out in ask(model, family.inputs(model)) if out.requires_grad]
        generator = torch.Generator().manual_seed(2)
        sum((out * torch.randn(out.shape, generator=generator)).sum() for out in outputs).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert grads, "no parameter has a gradient"
    assert all(grad.isfinite().all() for grad in grads.values())
    for call in calls:
        if call.grads:
            _check_grad_input(call)
    _check_grad_weights(model, calls)


def _check_grad_input(call: Call) -> None:
    """The layer on its own, from the same input and the same gradient."""
    x = call.input.clone().requires_grad_()
    call.layer(x).backward(call.grads[0], inputs=[x])
    g, w = oracle.values(oracle.rows(call.grads[0]), E5), oracle.values(call.weight_NK, E4)
    exact, found = oracle.product(g, w), oracle.rows(x.grad)
    assert exact.contains(found), f"{call.layer.fp8.name.module}: grad_input off by {exact.worst(found):.3g}"


def _check_grad_weights(model: nn.Module, calls: list[Call]) -> None:
    """The gradient of each weight, of a layer that was called once, whose weight no other module has."""
    uses = [id(p) for m in model.modules() for p in m.parameters(recurse=False)]
    layers = [call.layer for call in calls]
    for call in calls:
        name = call.layer.fp8.name.module
        if layers.count(call.layer) > 1 or uses.count(id(call.layer.weight)) > 1 or not call.grads:
            continue
        g, x = oracle.values(oracle.rows(call.grads[0]), E5), oracle.values(oracle.rows(call.input), E4)
        exact = oracle.product(g.t(), x)
        found = call.layer.weight.grad
        found = found.t() if call.layer.fp8.is_conv1d else found
        assert exact.contains(found), f"{name}: grad_weight off by {exact.worst(found):.3g}"


def check_revert(family: Family) -> None:
    """After convert, a pass forward and backward, and revert, all is as it was, bit for bit."""
    model = family.build()
    model.config.use_cache = False
    inputs = family.inputs(model)
    with torch.no_grad():
        before = ask(model, inputs)  # the first call: some put other modules in place
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    types = {name: type(module) for name, module in model.named_modules()}
    parameters = {name: id(p) for name, p in model.named_parameters()}
    octoscale.convert(model, Recipe.amax())
    prepare_gradients(family, model)
    sum(out.sum() for out in ask(model, inputs) if out.requires_grad).backward()
    octoscale.revert(model)
    model.eval()
    assert {name: type(module) for name, module in model.named_modules()} == types
    assert {name: id(p) for name, p in model.named_parameters()} == parameters
    after = model.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], state[name]) for name in state)
    with torch.no_grad():
        assert all(same(a, b) for a, b in zip(before, ask(model, inputs), strict=True))


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same values; NaN counts as one."""
    return a.shape == b.shape and torch.equal(a.nan_to_num(12345.0), b.nan_to_num(12345.0))
