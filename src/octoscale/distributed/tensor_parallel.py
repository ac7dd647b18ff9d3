"""Tensor parallel: each rank holds some columns or rows of a layer's weight, and computes its part of the product.

    styles = split_layers(model, mesh)       in place, converted or not; {module: style}

Legend as in layers/linear.py: y_BN = x_BK @ w_KN. The styles are those of transformers' plans, by their names:

    colwise                  w in parts of N    x whole     y in parts      the sum in dx is in parts
    rowwise                  w in parts of K    x in parts  y whole         the sum in y is in parts
    colwise_gather_output    w in parts of N    x whole     y whole         its parts are put together
    rowwise_split_input      w in parts of K    x whole     y whole         each rank takes its part of x

Partial sums are added up in float32, then rounded once. A tensor that is in parts is scaled by the largest amax of all
parts, so that its codes are those of one machine. Of a model without FP8 the layers that could be FP8 are split in the
same way, so that a training has one to be compared with (layers/trained_part.py). The plan is the model's own
(transformers' `base_model_tp_plan`), where the ranks divide the heads and a block holds nothing that the plan does not
name; else tensors are put together after each layer, and what stands between them, attention say, is computed on every
rank.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from octoscale.conversion.convert import preview, replace_module
from octoscale.conversion.kinds import WRAPPED
from octoscale.distributed.groups import Largest
from octoscale.layers.linear import Fp8Linear
from octoscale.layers.ranks import Ranks
from octoscale.layers.trained_part import TrainedPartConv1D, trained_part
from octoscale.numerics.formats import Role
from octoscale.numerics.recipe import Recipe

COLWISE, ROWWISE = "colwise", "rowwise"
GATHER_OUTPUT, SPLIT_INPUT = "colwise_gather_output", "rowwise_split_input"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """by_output: whether the weight is in parts of its outputs. parts: roles beside the weight that are in parts."""

    by_output: bool
    parts: tuple[Role, ...]


RULES = {
    COLWISE: Rule(by_output=True, parts=("grad_output",)),
    ROWWISE: Rule(by_output=False, parts=("input",)),
    GATHER_OUTPUT: Rule(by_output=True, parts=("grad_output",)),
    SPLIT_INPUT: Rule(by_output=False, parts=("input",)),
}

#: The style with whole tensors on both sides, for each with parts on one.
_WHOLE = {COLWISE: GATHER_OUTPUT, ROWWISE: SPLIT_INPUT}

#: Of models for which transformers has no plan: names of layers between which nothing mixes the values.
_OWN_PLANS: Mapping[str, Mapping[str, str]] = {
    "gpt2": {"mlp.c_fc": COLWISE, "mlp.c_proj": ROWWISE},
    "opt": {"fc1": COLWISE, "fc2": ROWWISE},
}


def split_layers(model: nn.Module, mesh: DeviceMesh) -> dict[str, str]:
    """Split the FP8 layers of `model` over the ranks of a mesh of one dimension; returns the style of each.

    Of a model that has none, those that could be. All else is on every rank. Before `shard`, and before an optimizer is
    made. UserError if the model has neither.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Fp8Linear)}
    for layer in layers.values():
        layer.fp8.recipe.check_whole("a model on many ranks")
    names = [*layers] or [row.module for row in preview(model, Recipe.amax()).converted]
    if not layers:
        for name in names:
            replace_module(model, name, trained_part(model.get_submodule(name)))
    styles = styles_of(model, names, mesh.size())
    for name, style in styles.items():
        _split(model.get_submodule(name), style, mesh)
    return styles


def styles_of(model: nn.Module, names: Iterable[str], size: int) -> dict[str, str]:
    """The style of each of these layers on so many ranks.

    Tensors are whole between layers, where the plan would have them in parts, if an adapter stands around a layer, for
    it takes and gives whole ones; in attention, if the ranks do not divide the heads; in a block, attention or FFN,
    that holds anything but layers of the plan, for who meets a part there must know it; and everywhere without a plan.
    """
    config = getattr(model, "config", None)
    plan = dict(getattr(config, "base_model_tp_plan", None) or _OWN_PLANS.get(getattr(config, "model_type", ""), {}))
    heads = [getattr(config, key, None) for key in ("num_attention_heads", "num_key_value_heads")]
    whole_heads = all(count is None or count % size == 0 for count in heads)
    patterns = {name: next((p for p in plan if _matches(p, name.removesuffix(WRAPPED))), "") for name in names}
    planned = {name: plan[pattern] for name, pattern in patterns.items() if plan.get(pattern) in RULES}
    adapted = any(name.endswith(WRAPPED) for name in patterns)
    found = {}
    for name, pattern in patterns.items():
        style = planned.get(name, GATHER_OUTPUT)
        of_attention = "attn" in pattern or "attention" in pattern
        if adapted or (of_attention and not whole_heads) or not _is_all_planned(model, _parent(name), planned):
            style = _WHOLE.get(style, style)
        found[name] = style
    return found


def _is_all_planned(model: nn.Module, block: str, planned: Mapping[str, str]) -> bool:
    """Whether parts may stand between the layers of a block: it begins and ends with layers of the plan.

    Not if another module there has parameters, which would each be trained on a part, or is a norm, which would be that
    of a part.
    """
    inside = {name: style for name, style in planned.items() if _parent(name) == block}
    others = [
        module
        for name, module in model.get_submodule(block).named_modules(prefix=block)
        if name not in inside and (module._parameters or "norm" in type(module).__name__.lower())
    ]
    return not others and {COLWISE, ROWWISE} <= set(inside.values())


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _matches(pattern: str, name: str) -> bool:
    """Whether a name ends as a plan's pattern says, whose * is a number."""
    return re.search(rf"(^|\.){re.escape(pattern)}$".replace(r"\*", r"\d+"), name) is not None


def _split(layer: Any, name: str, mesh: DeviceMesh) -> None:
    """Keep this rank's part of the weight; have the layer ask the other ranks for the rest."""
    style, owner = RULES[name], layer.fp8 if isinstance(layer, Fp8Linear) else layer
    in_out = layer.fp8.is_conv1d if isinstance(layer, Fp8Linear) else isinstance(layer, TrainedPartConv1D)
    num_outputs = layer.weight.shape[int(in_out)]  # Conv1D's weight is [in, out]
    _distribute(layer, "weight", mesh, Shard(int(style.by_output == in_out)))
    if layer.bias is not None:
        _distribute(layer, "bias", mesh, Shard(0) if style.by_output else Replicate())
    owner.ranks = ask_others(layer, name, num_outputs, mesh.get_group())


def ask_others(layer: nn.Module, style: str, num_outputs: int, group: dist.ProcessGroup) -> Ranks:
    """Have a layer that is a part take and give what its style says; returns what it has to ask the other ranks for.

    num_outputs: those of the whole layer.
    """
    rule, largest, add = RULES[style], Largest([group]), _Add(group)
    if style == SPLIT_INPUT:
        layer.register_forward_pre_hook(lambda _, args: (_take_part(args[0], group), *args[1:]))
    if style == GATHER_OUTPUT:
        layer.register_forward_hook(lambda _, __, out: _put_together(out, num_outputs, group))
    return Ranks(
        amax=dict.fromkeys(("weight", *rule.parts), largest),
        sum_output=None if rule.by_output else add,
        sum_grad_input=add if rule.by_output else None,
    )


def _distribute(layer: nn.Module, name: str, mesh: DeviceMesh, placement: Any) -> None:
    parameter = getattr(layer, name)
    part = distribute_tensor(parameter.detach(), mesh, [placement], src_data_rank=None)
    setattr(layer, name, nn.Parameter(part, requires_grad=parameter.requires_grad))


def _take_part(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    return _TakePart.apply(x, group)  # type: ignore[no-any-return,no-untyped-call]


def _put_together(part: Tensor, size: int, group: dist.ProcessGroup) -> Tensor:
    return _PutTogether.apply(part, size, group)  # type: ignore[no-any-return,no-untyped-call]


class _Add:
    """From partial sums to the sum over the ranks of a group."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group

    def __call__(self, partial: Tensor) -> Tensor:
        dist.all_reduce(partial, group=self._group)
        return partial

    def __deepcopy__(self, _: Any) -> "_Add":
        return self  # a copy of a model asks the same ranks


class _TakePart(torch.autograd.Function):
    """This rank's part of the last dimension; backward puts the parts of the gradient together."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.size, ctx.group = x.shape[-1], group
        return _part(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _together(grad, ctx.size, ctx.group), None


class _PutTogether(torch.autograd.Function):
    """All parts of the last dimension; backward takes this rank's part of the gradient."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, size: int, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _together(part, size, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _part(grad, ctx.group), None, None


def _part(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """This rank's part of the last dimension, as `Shard` cuts it: the last ranks may have less, or nothing."""
    size, rank = -(-x.shape[-1] // group.size()), group.rank()
    return x[..., size * rank : size * (rank + 1)].contiguous()


def _together(part: Tensor, size: int, group: dist.ProcessGroup) -> Tensor:
    """The parts of all ranks as one tensor, whose last dimension has this size."""
    largest = -(-size // group.size())
    padded = nn.functional.pad(part, (0, largest - part.shape[-1])).contiguous()
    parts = [torch.empty_like(padded) for _ in range(group.size())]
    dist.all_gather(parts, padded, group=group)
    return torch.cat(parts, dim=-1)[..., :size].contiguous()
