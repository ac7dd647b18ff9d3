"""From the largest magnitude of a tensor to its scale: the one statement of direction.

    codes = cast(x * 2**scale_bias)          x ~ codes * 2**-scale_bias

`scale_bias` is an int (Perez et al. 2023 call it the scaling bias) and the only scale that is stored. A larger
scale_bias moves a tensor of small values up into the range of the format. Three rules choose it:

    Amax      from this tensor's own amax, just in time: the largest value lands in the format's top binade (FP8-AMAX)
    Constant  one number for every tensor, chosen by a sweep (FP8-CSCALE)
    Delayed   from the largest amax of the last steps, as in Transformer Engine; for comparison

Amax takes a granularity (numerics/granularity.py): a scale for each row, block or 32 values, from the amax of each.
Under `mx` its power of two is rounded in one of two ways. `round=down`, the default, is that of the OCP Microscaling
Formats v1.0: the largest value lands in the format's top binade, and saturates where it lies above the format's largest
there. `round=up` (Mishra et al. 2025, arXiv:2506.08027) is what every other granularity does: nothing saturates. OCP's
scale is 2**-scale_bias, kept in E8M0, whose exponent reaches from -127 to 127: scale_bias -127 would need an amax above
float32's, and 127, for an amax below 2**-118 in e4m3fn, is 126 here. Groups of zeros, for which OCP names no scale,
have scale_bias 0.

scale_bias comes from exponent bits (frexp), never from a floating logarithm, which is wrong next to powers of two. It
stays in [-126, 126], so that 2**scale_bias is a normal float32. An amax that is 0, infinite or NaN gives 0.

An amax is a plain float where its tensor is on a CPU, and its scale_bias then an int; on a device, and where there are
several of them, both are tensors, and nothing waits for them.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar, overload

import torch
from torch import Tensor

from octoscale.numerics.formats import Format
from octoscale.numerics.granularity import MX, TENSOR, get_granularity
from octoscale.system.errors import UserError

#: One number: plain on a CPU, a tensor without dimensions on a device.
Amount = Tensor | float
Bias = Tensor | int

MIN_SCALE_BIAS, MAX_SCALE_BIAS = -126, 126

#: How the power of two of an MX scale is rounded; the first is the default.
ROUNDINGS = ("down", "up")


@dataclass(frozen=True, kw_only=True)
class Amax:
    """FP8-AMAX: `floor(log2(max / amax)) - margin`. A margin m leaves m binades of headroom.

    granularity: over which values a scale, and its amax, reaches. round: of `ROUNDINGS`, for `mx` alone.
    """

    margin: int = 0
    granularity: str = TENSOR.name
    round: str = ""

    def __post_init__(self) -> None:
        _check_margin(self.margin)
        get_granularity(self.granularity)
        if self.granularity == MX.name:
            object.__setattr__(self, "round", self.round or ROUNDINGS[0])
        if self.round not in (ROUNDINGS if self.granularity == MX.name else ("",)):
            raise UserError(f"round={self.round}: it is {' or '.join(ROUNDINGS)}, and for amax:mx alone")

    def scale_bias(self, amax: Amount, fmt: Format, history: "History | None" = None) -> Bias:
        """The scale_bias for a tensor with this amax: an int of a float, an int32 tensor of a tensor, in its shape."""
        return amax_to_scale_bias(amax, fmt, self.margin, down=self.round == "down")

    def __str__(self) -> str:
        words = [] if self.granularity == TENSOR.name else [self.granularity]
        words += [f"margin={self.margin}"] if self.margin else []
        words += [f"round={self.round}"] if self.round not in ("", ROUNDINGS[0]) else []
        return ":".join(["amax", ",".join(words)] if words else ["amax"])


@dataclass(frozen=True)
class Constant:
    """FP8-CSCALE: the same `bias` for every tensor, whatever it holds. ValueError outside [-126, 126]."""

    bias: int
    granularity: ClassVar[str] = TENSOR.name

    def __post_init__(self) -> None:
        _check_int("bias", self.bias)
        if not MIN_SCALE_BIAS <= self.bias <= MAX_SCALE_BIAS:
            raise UserError(f"constant scale_bias {self.bias} is outside {MIN_SCALE_BIAS}..{MAX_SCALE_BIAS}")

    def scale_bias(self, amax: Amount, fmt: Format, history: "History | None" = None) -> Bias:
        """The constant; as an int32 tensor without dimensions, on its device, if `amax` is a tensor."""
        if not isinstance(amax, Tensor):
            return self.bias
        return torch.full((), self.bias, dtype=torch.int32, device=amax.device)

    def __str__(self) -> str:
        return f"cscale:{self.bias}"


@dataclass(frozen=True, kw_only=True)
class Delayed:
    """Delayed scaling: as Amax, from the largest amax of the last `history` steps instead of this tensor's.

    Values larger than anything in the history saturate. An empty history falls back to this tensor's own amax.
    """

    history: int = 16
    margin: int = 0
    granularity: ClassVar[str] = TENSOR.name

    def __post_init__(self) -> None:
        _check_margin(self.margin)
        _check_int("history", self.history)
        if self.history < 1:
            raise UserError(f"delayed scaling needs a history of at least 1 step, not {self.history}")

    def scale_bias(self, amax: Amount, fmt: Format, history: "History | None" = None) -> Bias:
        """The scale_bias from `history`; the amax of this tensor is used only if the history is empty."""
        past = history.max() if history is not None else None
        if past is None:
            past = amax
        elif isinstance(amax, Tensor) and not isinstance(past, Tensor):
            past = torch.tensor(past, dtype=torch.float32, device=amax.device)
        return amax_to_scale_bias(past, fmt, self.margin)

    def __str__(self) -> str:
        return f"delayed:history={self.history}" + (f",margin={self.margin}" if self.margin else "")


Rule = Amax | Constant | Delayed


class History:
    """The amax of the last steps of one tensor, for `Delayed`.

    A step may see the tensor several times (micro-batches, or a second forward under activation checkpointing): its
    amax is the largest of them, and it enters the history only when `advance` closes the step. So a recomputed
    forward uses the scale of the first one. Several threads may share it.
    """

    def __init__(self, length: int, past: Sequence[float] = (), device: torch.device | str = "cpu") -> None:
        self._length = length
        self._past = [plain(torch.tensor(amax, dtype=torch.float32, device=device)) for amax in past][-length:]
        self._pending: Amount | None = None
        self._lock = threading.Lock()

    def observe(self, amax: Amount) -> None:
        """Take note of an amax of the current step."""
        amax = plain(amax)
        with self._lock:
            self._pending = amax if self._pending is None else _larger(self._pending, amax)

    def advance(self) -> None:
        """Close the current step. A step whose amax was 0 or not finite leaves no trace."""
        with self._lock:
            pending, self._pending = self._pending, None
            if pending is not None and 0 < pending < math.inf:
                self._past = [*self._past, pending][-self._length :]

    def save(self) -> list[float]:
        """The amax of the closed steps in memory, oldest first: the `past` of another History."""
        return [float(amax) for amax in self._past]

    def max(self) -> Amount | None:
        """The largest amax of the closed steps in memory; None if there is none."""
        past = self._past  # one list, whatever another thread puts in its place
        return reduce(_larger, past) if past else None


def plain(amax: Amount) -> Amount:
    """The number itself, if looking at it waits for nothing: on a CPU, and not for a compiler."""
    if type(amax) is Tensor and amax.device.type == "cpu" and not torch.compiler.is_compiling():
        return float(amax.item())
    return amax


def _larger(a: Amount, b: Amount) -> Amount:
    """The larger one of two; NaN wins."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        device = a.device if isinstance(a, Tensor) else b.device  # type: ignore[union-attr]
        return torch.maximum(*(torch.as_tensor(x, dtype=torch.float32, device=device) for x in (a, b)))
    return a if a >= b or math.isnan(a) else b


@overload
def amax_to_scale_bias(amax: Tensor, fmt: Format, margin: int = 0, *, down: bool = False) -> Tensor: ...
@overload
def amax_to_scale_bias(amax: Amount, fmt: Format, margin: int = 0, *, down: bool = False) -> Bias: ...
def amax_to_scale_bias(amax: Amount, fmt: Format, margin: int = 0, *, down: bool = False) -> Bias:
    """The largest b with `amax * 2**b <= fmt.max`, less `margin`, within [-126, 126].

    down: of both only the power of two below counts, so that amax may saturate. An int of a float; of a tensor int32,
    in its shape. Exact for every float32, subnormals included; 0, inf and NaN give 0. Does not wait for a device.
    """
    if not isinstance(amax, Tensor):
        return _scale_bias(amax, fmt, margin, down)
    max_mantissa, max_exponent = math.frexp(fmt.max)
    mantissa, exponent = torch.frexp(amax.float())
    bias = max_exponent - exponent - margin
    if not down:
        bias = bias - (mantissa > max_mantissa).to(torch.int32)
    usable = amax.isfinite() & (amax > 0)
    return torch.where(usable, bias.clamp(MIN_SCALE_BIAS, MAX_SCALE_BIAS), 0).to(torch.int32)


def _scale_bias(amax: float, fmt: Format, margin: int, down: bool) -> int:
    """The same of one number."""
    if amax == 0 or not math.isfinite(amax):
        return 0
    max_mantissa, max_exponent = math.frexp(fmt.max)
    mantissa, exponent = math.frexp(amax)
    bias = max_exponent - exponent - (mantissa > max_mantissa and not down) - margin
    return max(MIN_SCALE_BIAS, min(MAX_SCALE_BIAS, bias))


def _check_int(what: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} {value!r} is not a whole number: scales are powers of two")


def _check_margin(margin: int) -> None:
    _check_int("margin", margin)
    span = MAX_SCALE_BIAS - MIN_SCALE_BIAS
    if abs(margin) > span:
        raise UserError(f"margin {margin} is outside {-span}..{span}, the binades that scale_bias can span")


@overload
def power_of_two(exponent: int) -> float: ...
@overload
def power_of_two(exponent: Tensor) -> Tensor: ...
def power_of_two(exponent: Bias) -> Amount:
    """2**exponent in [-126, 127]: a float of an int; of an int32 tensor float32, built from its bits. Both exact."""
    if not isinstance(exponent, Tensor):
        return 2.0**exponent
    return ((exponent + 127) << 23).view(torch.float32)
