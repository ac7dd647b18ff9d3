"""The waist: check what the caller passed, let the rule choose a scale, dispatch to the backend of the device.

q = quantize(x, "e4m3fn", Amax())        q.codes, q.scale_bias, q.format, q.granularity, q.observed
q.dequantize(torch.float32)              codes * 2**-scale_bias
matmul(a, b)                             (a.codes @ b.codes) * 2**-(a.scale_bias + b.scale_bias)
linear(x, w)                             x @ w^T, where x may stay in bfloat16

A scale may reach less far than the tensor (numerics/granularity.py):

q = quantize(x, "e4m3fn", Amax(granularity="row"))       q.scale_bias [M, 1]: one for each row of x [M, K]
quantize(w, "e4m3fn", Amax(granularity="block"), granularity=along("block", "weight"))
turned(q, Amax(granularity="row"))                       the same values, with a scale for each column

Here a rule stands between what a backend observes and what it encodes; a backend applies it to groups by itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from octoscale.kernels import table
from octoscale.kernels.base import Encoded, Seen
from octoscale.kernels.groups import unscale, whole
from octoscale.kernels.quantized import DTYPES as DTYPES
from octoscale.kernels.quantized import Observed as Observed
from octoscale.kernels.quantized import Quantized as Quantized
from octoscale.kernels.quantized import backend_of, check_dtype, check_granularity, name_of, rows_of
from octoscale.numerics.accumulators import check_formats, get_accumulator
from octoscale.numerics.formats import Format, get_format
from octoscale.numerics.granularity import TENSOR, Granularity, get_granularity
from octoscale.numerics.scaling import Amax, Amount, Bias, Constant, History, Rule
from octoscale.system.errors import UserError

_WHOLE = TENSOR.name

#: The largest of an amax here and those of the same tensor on other ranks.
Everywhere = Callable[[Amount], Amount]


def quantize(
    x: Tensor,
    format: str | Format,
    rule: Rule,
    *,
    history: History | None = None,
    counts: bool = False,
    exponents: bool = False,
    everywhere: Everywhere | None = None,
    granularity: Granularity | None = None,
) -> Quantized:
    """Cast `x` to FP8 with the scale_bias that `rule` chooses, or with one for each group of values.

    x: float32, bfloat16 or float16 of any shape and strides, empty included. Round to nearest, ties to even; finite
    values beyond the format's largest saturate; infinity and NaN become NaN (golden table: numerics/reference.py).
    `counts` and `exponents` fill those parts of `observed`; `history` serves the rule `Delayed`. everywhere: from the
    amax of this part of a tensor to that of the whole one, other parts of which are on other ranks; that is the amax
    of `observed` then. granularity: the rule's as this operand lies (`along`); None: groups along the last dimension.
    Raises TypeError for another dtype, ValueError for an unknown format.
    """
    fmt = get_format(format) if isinstance(format, str) else format
    if rule.granularity != _WHOLE or (granularity is not None and granularity is not TENSOR):
        groups = get_granularity(rule.granularity) if granularity is None else granularity
        return _quantize_groups(x, fmt, rule, groups, counts, exponents, everywhere)
    if not isinstance(rule, Constant):
        seen = observe(x, exponents=exponents)
        if everywhere is not None:
            seen = seen._replace(amax=everywhere(seen.amax))
        return encode(x, fmt, rule, seen, history=history, counts=counts)
    x = _checked(x)
    backend = table.choose(x.device.type).backend
    seen, encoded = backend.cast(x, fmt, rule.bias, counts=counts, exponents=exponents)
    if everywhere is not None:  # whether all is finite has to be known on all ranks
        seen = seen._replace(amax=everywhere(seen.amax))
    return _quantized(fmt, rule.bias, seen, encoded)


def turned(q: Quantized, rule: Rule) -> Quantized:
    """A matrix with scales along its other dimension, for a sum along that one; itself, if they serve both.

    It is cast again, from the values of its codes. As scales are powers of two, a value keeps its code's digits: only
    one that becomes subnormal in its new group loses any, and one that its new scale saturates (mx with round=down).
    rule: that of the first cast.
    """
    granularity = q.granularity.t()
    if granularity == q.granularity:
        return q
    return quantize(q.dequantize(torch.float32), q.format, rule, granularity=granularity)


def _quantize_groups(
    x: Tensor,
    fmt: Format,
    rule: Rule,
    granularity: Granularity,
    counts: bool,
    exponents: bool,
    everywhere: Everywhere | None,
) -> Quantized:
    """`quantize` with a scale for each group."""
    if granularity.name != rule.granularity:
        raise UserError(f"quantize: {rule} has scales of granularity {rule.granularity}, not {granularity}")
    if everywhere is not None:
        raise UserError(f"{rule}: a tensor whose parts are on several ranks has one scale, of granularity tensor")
    x = _checked(x)
    choice = table.choose(x.device.type)
    check_granularity(choice, granularity, "quantize")
    assert isinstance(rule, Amax)
    seen, bias, encoded = choice.backend.cast_groups(x, fmt, rule, granularity, counts=counts, exponents=exponents)
    observed = _observed(seen, encoded)
    largest = observed.amax.amax() if observed.amax.numel() else observed.amax.new_zeros(())
    return Quantized(
        codes=encoded.codes,
        scale_bias=bias,
        format=fmt,
        granularity=granularity,
        observed=replace(observed, amax=largest, amaxes=observed.amax),
    )


def observe(x: Tensor, *, exponents: bool = False) -> Seen:
    """The first half of `quantize`: what a rule has to know, before a scale. Raises as `quantize`."""
    x = _checked(x)
    return table.choose(x.device.type).backend.observe(x, exponents=exponents)


def encode(
    x: Tensor,
    format: str | Format,
    rule: Rule | Tensor,
    seen: Seen,
    *,
    history: History | None = None,
    counts: bool = False,
) -> Quantized:
    """The second half: the cast with the scale that `rule` chooses for the amax in `seen`, of `x` or of more.

    A tensor in place of a rule is the scale_bias itself, int32 without dimensions.
    UserError for a rule with several scales: `quantize` does both halves of it.
    """
    x = _checked(x)
    if not isinstance(rule, Tensor) and rule.granularity != _WHOLE:
        raise UserError(f"{rule}: what is observed and encoded apart has one scale, of granularity tensor")
    fmt = get_format(format) if isinstance(format, str) else format
    scale_bias = rule if isinstance(rule, Tensor) else rule.scale_bias(seen.amax, fmt, history)
    encoded = table.choose(x.device.type).backend.encode(x, fmt, seen.amax, scale_bias, counts=counts)
    return _quantized(fmt, scale_bias, seen, encoded)


def _checked(x: Tensor) -> Tensor:
    check_dtype(x.dtype, "quantize")
    if x.layout != torch.strided:
        raise TypeError(f"quantize takes a dense tensor, not one of layout {name_of(x.layout)}: x.to_dense()")
    return x.detach() if x.requires_grad else x


def _quantized(fmt: Format, scale_bias: Bias, seen: Seen, encoded: Encoded) -> Quantized:
    return Quantized(
        codes=encoded.codes,
        scale_bias=_boxed(scale_bias, torch.int32, encoded.codes.device),
        format=fmt,
        granularity=TENSOR,  # said, for a compiler does not follow the default of a class
        observed=_observed(seen, encoded),
    )


def _observed(seen: Seen, encoded: Encoded) -> Observed:
    """What a cast saw, as its caller gets it."""
    saturated, flushed, nonfinite = (None, None, None) if encoded.counts is None else encoded.counts.unbind()
    amax = _boxed(seen.amax, torch.float32, encoded.codes.device)
    return Observed(amax=amax, saturated=saturated, flushed=flushed, nonfinite=nonfinite, exponents=seen.exponents)


def _boxed(number: Amount | Bias, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A plain number as a tensor without dimensions."""
    return number if isinstance(number, Tensor) else torch.scalar_tensor(number, dtype=dtype, device=device)


def matmul(
    a: Quantized,
    b: Quantized,
    *,
    dtype: torch.dtype = torch.float32,
    bias: Tensor | None = None,
    fast: bool = False,
    accumulate: str = "",
) -> Tensor:
    """`a @ b + bias` of two matrices, [M, K] and [K, N] -> [M, N]: accumulated in float32, unscaled, rounded once.

    bias: [N] or None, added before the rounding. fast: a GPU may keep fewer bits of its sums.
    accumulate: a name of numerics/accumulators.py, to imitate the sums of that tensor core on a CPU. Raises ValueError
    for shapes or devices that do not fit, TypeError for a dtype other than float32, bfloat16 and float16.
    """
    if a.codes.ndim != 2 or b.codes.ndim != 2 or a.codes.shape[1] != b.codes.shape[0]:
        raise UserError(f"matmul takes [M, K] and [K, N], not {list(a.codes.shape)} and {list(b.codes.shape)}")
    return _product(a, b, bias, dtype, "matmul", fast, accumulate)


def linear(
    x: Quantized | Tensor,
    weight: Quantized,
    bias: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
    fast: bool = False,
) -> Tensor:
    """`x @ weight^T + bias`, [..., K] and [N, K] -> [..., N]: accumulated in float32, unscaled, rounded once.

    x: codes (W8A8, the paper's method), or bfloat16 values that stay as they are (W8A16). bias: [N] or None. dtype:
    that of the result; bfloat16 unless given. fast: as in `matmul`. No gradient flows: `Fp8Linear` has the backward
    products. Raises TypeError for other dtypes, ValueError for shapes or devices that do not fit.
    """
    values = x.codes if isinstance(x, Quantized) else x
    if not isinstance(x, Quantized) and x.dtype != torch.bfloat16:
        raise TypeError(f"linear takes codes or bfloat16 values, not {name_of(x.dtype)}: quantize x, or x.bfloat16()")
    if weight.codes.ndim != 2 or values.ndim == 0 or values.shape[-1] != weight.codes.shape[1]:
        raise UserError(f"linear takes [..., K] and [N, K], not {list(values.shape)} and {list(weight.codes.shape)}")
    rows = x.flatten_rows() if isinstance(x, Quantized) else rows_of(x)
    out = _product(rows, weight.t(), bias, torch.bfloat16 if dtype is None else dtype, "linear", fast)
    return reshaped(out, (*values.shape[:-1], weight.codes.shape[0]))


def reshaped(fresh: Tensor, shape: Sequence[int]) -> Tensor:
    """Another shape for a result that nobody else holds yet.

    No view of it, for what a model gets it may write to in place (OLMo clips, Llama 4 adds), and autograd refuses such
    a write to a view that was made inside of a Function, or without gradients. torch.compile makes its own of a view.
    """
    if fresh.requires_grad or torch.compiler.is_compiling():
        return fresh.view(shape)
    return fresh.contiguous().resize_(shape)


def in_columns(weight: Quantized) -> Quantized:
    """The same matrix [K, N] as the backend wants a second operand to lie: worth keeping for several products."""
    codes = backend_of(weight, "matmul").in_columns(weight.codes)
    return weight if codes is weight.codes else weight.view(codes)


def _product(
    a: Quantized | Tensor,
    b: Quantized,
    bias_N: Tensor | None,
    dtype: torch.dtype,
    what: str,
    fast: bool,
    accumulate: str = "",
) -> Tensor:
    """Check what `matmul` and `linear` both need, then dispatch."""
    device = (a if isinstance(a, Tensor) else a.codes).device
    check_dtype(dtype, what)
    if b.codes.device != device:
        raise UserError(f"{what} takes two operands on one device, not {device} and {b.codes.device}")
    if bias_N is not None:
        if bias_N.shape != b.codes.shape[1:]:
            raise UserError(f"{what} takes a bias [{b.codes.shape[1]}], not {list(bias_N.shape)}")
        if bias_N.device != device:
            raise UserError(f"{what} takes a bias on {device}, as its operands, not on {bias_N.device}")
        check_dtype(bias_N.dtype, f"the bias of {what}")
        bias_N = bias_N.detach()
    if not isinstance(a, Tensor):
        backend_of(a, what)
        if accumulate:
            if not whole(a, b):
                raise UserError(f"accumulate={accumulate} imitates products of one scale a tensor: cast under amax")
            return unscale(_imitated(a, b, accumulate, fast), a.scale_bias + b.scale_bias, bias_N, dtype)
    return backend_of(b, what).matmul(a, b, bias_N, dtype, fast=fast)


def check_imitation(name: str) -> None:
    """UserError if the sums of this tensor core cannot be imitated here: without the C++ core, or the name."""
    get_accumulator(name)
    try:
        import octoscale.kernels.native  # noqa: F401
    except ImportError as error:
        raise UserError(f"accumulate={name} needs the C++ core, which was not built") from error


def _imitated(a: Quantized, b: Quantized, name: str, fast: bool) -> Tensor:
    """The unscaled sums of a tensor core, by the C++ core. UserError where there is none."""
    if a.codes.device.type != "cpu":
        raise UserError(f"accumulate={name} is computed on a CPU, and the model is on {a.codes.device}")
    check_imitation(name)
    from octoscale.kernels.native import Native, chosen

    row = get_accumulator(name)
    check_formats(row, (a.format.name, b.format.name))
    return Native(chosen()).accumulate(a.codes, b.codes, row.rule(fast=fast))
