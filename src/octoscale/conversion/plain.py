"""Whether a module computes the plain product `x @ weight^T + bias`, and nothing else.

    why_not_plain(nn.Linear(4, 4))       None
    why_not_plain(FalconLinear(4, 4))    None: its forward is its own, and gives what nn.Linear gives
    why_not_plain(Scaled(4, 4))          "Scaled has a forward of its own"

A subclass of nn.Linear shows it in a trial: its forward and backward run on small integers, whose sums are exact in any
order, and on very large and very small ones, beside torch's own. A trial sees what a class does now; so a class whose
code reads attributes of its own (a scale, a mask, a mode) is not plain, whatever these are now.
"""

from collections.abc import Iterator
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy

from octoscale.layers.origin import is_conv1d
from octoscale.layers.part_linear import RowPart

_SHAPES = ((3,), (4, 3), (2, 4, 3), (0, 3))
_MAGNITUDES = (1.0, 2.0**40, 2.0**-40)
#: Methods that run before the first forward, or for people.
_NOT_RUN = frozenset({"__init__", "reset_parameters", "extra_repr", "__repr__"})


def why_not_plain(module: nn.Module) -> str | None:
    """Why this is not the plain product; None if it is: nn.Linear, Conv1D, or a subclass that computes what they do."""
    cls = type(module)
    if "forward" in module.__dict__:
        return "its forward was replaced by another library: convert before that"
    if not (isinstance(module, nn.Linear) or is_conv1d(module)):
        return f"{cls.__name__} has a forward of its own"
    if cls is RowPart:
        return None
    weight = module._parameters.get("weight")
    if weight is not None and is_lazy(weight):
        return "its weight has no shape yet: call the model once before"
    if cls is not nn.Linear and not is_conv1d(module):
        own = {name for name, parameter in module._parameters.items() if parameter is not None}
        has_state = not own <= {"weight", "bias"} or module._buffers or module._modules or _reads_state(module)
        if has_state or not _computes_the_product(cls, cls.forward):  # type: ignore[arg-type]
            return f"{cls.__name__} has a forward of its own"
    if weight is None:
        return "its weight is computed from other parameters in each call"
    return None


def _reads_state(module: nn.Module) -> bool:
    """Whether the code of a subclass reads attributes that nn.Linear does not have, of the layer or of its class."""
    classes = [cls for cls in type(module).__mro__ if issubclass(cls, nn.Linear) and cls is not nn.Linear]
    own = set(module.__dict__) - set(_plain_layer(nn.Linear, None).__dict__)
    own |= {name for cls in classes for name, value in vars(cls).items() if not callable(value)} - set(vars(nn.Linear))
    return bool(own & {name for cls in classes for function in _functions_of(cls) for name in _names_in(function)})


def _functions_of(cls: type) -> Iterator[FunctionType]:
    return (f for name, f in vars(cls).items() if isinstance(f, FunctionType) and name not in _NOT_RUN)


def _names_in(function: FunctionType) -> tuple[str, ...]:
    return function.__code__.co_names


@cache
def _computes_the_product(cls: type[nn.Linear], forward: Any) -> bool:  # noqa: ARG001  forward: part of the key
    """Whether layers of this class give, bit for bit, what torch gives on integers: outputs and all gradients."""
    try:
        cpu = torch.device("cpu")  # the model may be being made on another
        with cpu, torch.inference_mode(mode=False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            return all(
                _agrees(cls, has_bias, training, dtype, magnitude)
                for has_bias in (False, True)
                for training in (False, True)
                for dtype in (torch.float32, torch.bfloat16)
                for magnitude in _MAGNITUDES
            )
    except Exception:  # noqa: BLE001  whatever a stranger's forward raises: it is no plain product
        return False


def _agrees(cls: type[nn.Linear], has_bias: bool, training: bool, dtype: torch.dtype, magnitude: float) -> bool:
    weight, bias = _integers(5, 3, dtype=dtype), _integers(5, dtype=dtype) * magnitude if has_bias else None
    layer = _plain_layer(cls, weight, bias).train(training)
    for shape in _SHAPES:
        x = _integers(*shape, dtype=dtype) * magnitude
        expected = _output_and_gradients(lambda *tensors: functional.linear(*tensors), x, weight, bias)
        for _ in range(2):
            found = _output_and_gradients(lambda x, *_: layer(x), x, *layer._parameters.values())
            if not all(torch.equal(one, other) for one, other in zip(found, expected, strict=True)):
                return False
    return True


def _plain_layer(cls: type[nn.Linear], weight: Tensor | None, bias: Tensor | None = None) -> nn.Linear:
    """A layer of this class with such a weight, [5, 3], without a call of its `__init__`."""
    layer = cls.__new__(cls)
    nn.Module.__init__(layer)
    layer.in_features, layer.out_features = 3, 5
    for name, value in (("weight", weight), ("bias", bias)):
        layer.register_parameter(name, None if value is None else nn.Parameter(value.clone()))
    return layer


def _output_and_gradients(call: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> list[Tensor]:
    leaves = [None if t is None else t.detach().clone().requires_grad_() for t in (x, weight, bias)]
    if isinstance(weight, nn.Parameter):  # the layer's own: gradients arrive there
        leaves[1:] = [weight, bias]
    y = call(*leaves)
    wanted = [leaf for leaf in leaves if leaf is not None]
    return [y.detach(), *torch.autograd.grad(y, wanted, _integers(*y.shape, dtype=y.dtype))]


def _integers(*shape: int, dtype: torch.dtype) -> Tensor:
    """-3 to 3, in an order without a pattern; no random number is drawn."""
    numel = torch.Size(shape).numel()
    index = torch.arange(numel)
    return ((5 * index**2 + 3 * index + 2) % 7 - 3).view(shape).to(dtype)
