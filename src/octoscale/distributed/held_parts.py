"""Tensor parallel for inference: a rank holds its part of each weight from the beginning, an ordinary tensor.

    cuts = hold_parts(model, names, group)     these linear layers, in place; parameter -> the part of it that is here

Styles, sums and scales are those of tensor_parallel.py. What differs: nothing is trained, so there are no DTensors; a
model may be without values yet (device meta), so that a reader fills in this rank's parts and reads no others; and
layers in high precision are in parts as well, so that a model is compared with itself in FP8, or put into FP8 and back.
"""

from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from octoscale.conversion.convert import replace_module
from octoscale.distributed.cut import Cut, share_of
from octoscale.distributed.tensor_parallel import RULES, ask_others, styles_of
from octoscale.layers.linear import Fp8Linear
from octoscale.layers.origin import is_conv1d
from octoscale.layers.part_linear import RowPart, RowPartConv1D


def hold_parts(model: nn.Module, names: Iterable[str], group: dist.ProcessGroup) -> dict[str, Cut]:
    """Leave of these linear layers only what is this rank's; the cut of each parameter of theirs that is in parts.

    The layers are those of a converted or stored model, or in high precision. All ranks of the group call it, and from
    then on the model itself, with the same inputs.
    """
    cuts: dict[str, Cut] = {}
    for name, style in styles_of(model, list(names), group.size()).items():
        cuts |= _hold(model, name, style, group)
    return cuts


def _hold(model: nn.Module, name: str, style: str, group: dist.ProcessGroup) -> dict[str, Cut]:
    layer: Any = model.get_submodule(name)
    if isinstance(layer, Fp8Linear):
        layer.fp8.recipe.check_whole(f"{name} on many ranks")
    by_output = RULES[style].by_output
    in_out = layer.fp8.is_conv1d if isinstance(layer, Fp8Linear) else is_conv1d(layer)
    num_outputs = layer.get_parameter("weight").shape[1 if in_out else 0]
    if not (by_output or isinstance(layer, Fp8Linear)):
        layer = _summing(layer)
        replace_module(model, name, layer)
    cuts = {"weight": _cut(layer.get_parameter("weight"), int(by_output == in_out), group)}
    if by_output and layer._parameters.get("bias") is not None:
        cuts["bias"] = _cut(layer.get_parameter("bias"), 0, group)
    for key, cut in cuts.items():
        whole = layer.get_parameter(key)
        part = nn.Parameter(cut.of(whole.detach()), requires_grad=whole.requires_grad)
        part.__dict__.update(whole.__dict__)  # what transformers notes there
        setattr(layer, key, part)
    if by_output and "nf" in layer.__dict__:
        layer.nf = cuts["weight"].shape[1]  # the width that Conv1D gives its output
    ranks = ask_others(layer, style, num_outputs, group)
    owner: Any = layer.fp8 if isinstance(layer, Fp8Linear) else layer
    owner.ranks = ranks
    return {f"{name}.{key}": cut for key, cut in cuts.items()}


def _summing(layer: nn.Module) -> nn.Module:
    """The same layer, which adds up its partial sums."""
    cls = RowPartConv1D if is_conv1d(layer) else RowPart
    part = cls.__new__(cls)
    part.__dict__.update(layer.__dict__)
    part._parameters = dict(layer._parameters)
    return part


def _cut(whole: Tensor, dim: int, group: dist.ProcessGroup) -> Cut:
    """This rank's part of one dimension."""
    start, stop = share_of(whole.shape[dim], group.rank(), group.size())
    return Cut.along(dim, start, stop, whole.shape)
