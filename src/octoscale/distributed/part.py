"""This rank's part of a weight, which FSDP2 gathers as FP8 codes.

A `Part` is a tensor subclass with torch's two hooks for FSDP2. It holds the values, in the weight's own dtype, that the
optimizer changes; its `PartState` knows what was seen of them, the scale of the whole weight, and their codes.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.utils import _pytree as pytree

from octoscale.kernels import ops
from octoscale.kernels.base import Seen as Observation
from octoscale.kernels.ops import Quantized
from octoscale.layers.gathered import Gathered
from octoscale.layers.reuse import Seen
from octoscale.layers.state import LayerState
from octoscale.numerics.scaling import Amount
from octoscale.system.errors import UserError

_aten = torch.ops.aten

#: What makes a part of a part: FSDP2 cuts a weight up with these. All else gives ordinary tensors.
_PARTS = {
    *(_aten.detach.default, _aten.alias.default, _aten.view.default, _aten.as_strided.default, _aten.slice.Tensor),
    *(_aten.split.Tensor, _aten.clone.default, _aten._to_copy.default, _aten.new_zeros.default),
    _aten.empty_like.default,
}


class PartState:
    """The cast of one part, as long as its values and the scale of the whole weight stay what they are."""

    def __init__(self, layer: LayerState) -> None:
        self.layer = layer
        self.amax: Amount = 0.0  # of this part
        self._parameter = torch.empty(0)  # which this is a part of
        self._seen: tuple[Seen, Seen] | None = None
        self._observation: Observation | None = None
        self._settled: Amount | None = None  # the amax of the whole weight that chose the scale
        self._is_due = True

    def look(self, parameter: Tensor, part: "Part", *, left_out: bool) -> None:
        """Find the amax of this part, if it is to be cast anew."""
        self._is_due |= self.layer.weight_is_due(changed=not self.is_still(parameter, part), left_out=left_out)
        if self._is_due:
            recorder = self.layer.runtime.recorder
            exponents = recorder is not None and recorder.wants_exponents(self.layer.step)
            self._observation = ops.observe(part.rows, exponents=exponents)
            self.amax = self._observation.amax

    def settle(self, parameter: Tensor, part: "Part", amax: Amount, *, left_out: bool) -> None:
        """Cast the part, if it is to be, or if the amax of the whole weight is another one now."""
        if not self._is_due and amax == self._settled:
            return
        assert self._observation is not None
        operand, history = self.layer.recipe.weight, self.layer.history_of("weight")
        cast = ops.encode(
            part.rows,
            operand.format,
            operand.rule,
            self._observation._replace(amax=amax),
            history=history,
            counts=self.layer.runtime.recorder is not None,
        )
        if history is not None:
            history.observe(amax)
        self._seen, self._settled, self._is_due = (Seen(parameter), Seen(part)), amax, False
        self._parameter = parameter
        self.layer.keep_weight(part.rows, self._seen[0], cast, left_out=left_out)

    def is_still(self, parameter: Tensor, part: "Part") -> bool:
        """Whether nothing was written to the part since it was cast."""
        return self._seen is not None and self._seen[0].is_still(parameter) and self._seen[1].is_still(part)

    @property
    def cast(self) -> Quantized:
        """The codes of the part. UserError if they are of older values."""
        cast = self.layer.runtime.weight[1]
        if cast is None or self._is_due or self._seen is None or not self._seen[0].is_still(self._parameter):
            raise UserError(
                f"{self.layer.name.module}: its weight changed since the scales were chosen; call the sharded model "
                "itself, not a layer of it, for all ranks choose them together before its forward pass"
            )
        return cast


class Part(Tensor):
    """rows: those of a weight that this rank has, an ordinary tensor."""

    rows: Tensor
    state: PartState

    def __new__(cls, values: Tensor, state: PartState) -> "Part":  # noqa: PYI034
        """The part of these values."""
        self: Part = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,unused-ignore]
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=values.device,
        )
        self.rows, self.state = values, state
        return self

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """Of which layer, and the values."""
        return f"Part of {self.state.layer.name.module}: {self.rows!r}"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """What the operation makes of the values: a part, if it is a part of them, or an ordinary tensor."""
        first = args[0] if args else None
        inner_args, inner_kwargs = pytree.tree_map_only(cls, lambda part: part.rows, (tuple(args), dict(kwargs or {})))
        out = func(*inner_args, **inner_kwargs)
        if isinstance(first, cls) and func in _PARTS:
            return pytree.tree_map_only(Tensor, lambda values: cls(values, first.state), out)
        if isinstance(first, cls) and out is first.rows:  # written in place
            return first
        return out

    def fsdp_pre_all_gather(
        self,
        mesh: DeviceMesh,
        outer_size: torch.Size,
        outer_stride: tuple[int, ...],  # noqa: ARG002
        module: nn.Module,  # noqa: ARG002
        mp_policy: Any,  # noqa: ARG002
    ) -> tuple[tuple[Tensor, ...], Any]:
        """What is gathered: the codes as bytes, in as many rows as the largest part has."""
        cast = self.state.cast
        codes = cast.codes.view(torch.uint8)
        rows = -(-outer_size[0] // mesh.size())
        if len(codes) < rows:
            codes = torch.cat([codes, codes.new_zeros((rows - len(codes), *codes.shape[1:]))])
        return (codes,), (cast, outer_size)

    def fsdp_post_all_gather(
        self,
        outputs: tuple[Tensor, ...],
        metadata: Any,
        param_dtype: torch.dtype,
        *,
        out: Tensor | None = None,
    ) -> Any:
        """The weight of all codes; or, in the memory of an earlier one, its new scale."""
        cast, outer_size = metadata
        if out is not None:
            whole = out.to_local() if isinstance(out, DTensor) else out
            assert isinstance(whole, Gathered)
            whole.rescale(cast.scale_bias)
            return None
        codes = outputs[0].view(cast.codes.dtype)[: outer_size[0]]
        return Gathered(codes, cast.scale_bias, cast.format, param_dtype), ()
