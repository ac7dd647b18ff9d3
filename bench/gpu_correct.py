"""What has to hold on a GPU before its speed means anything: casts to the bit, products within a bound, no wait.

Oracles: plain torch on the CPU, whose casts are those of numerics/reference.py (tests/numerics); float64; and for the
sums of GPUs that have been measured, the imitation of numerics/accumulators.py, with which outputs are only compared.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn

from octoscale.conversion.convert import convert
from octoscale.kernels import ops, portable, scaled_mm, table
from octoscale.kernels.base import Backend
from octoscale.kernels.ops import Quantized
from octoscale.layers.linear import to_fp8
from octoscale.numerics.formats import FORMATS, Format
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.numerics.scaling import Amax, Constant, Rule
from octoscale.runs.scales import LayerName
from octoscale.system.errors import UserError
from octoscale.system.printable import first_line

#: The rows of numerics/accumulators.py that describe a compute capability.
IMITATED = {(8, 9): "ada", (9, 0): "hopper", (10, 0): "blackwell"}

#: Of the norm of an error, over that of the product: float32's sums are far below, and a scale that is wrong by 2, or
#: codes in another order, are far above. DeepSeek-V3 finds 2 % of a Hopper's fast sums of 4,096 products.
FULL, FAST = 0.01, 0.05

RULES: tuple[Rule, ...] = (Amax(), Constant(0), Constant(-9), Constant(13))
SHAPES = ((64, 128, 96), (33, 100, 7), (512, 4096, 256))
REHEARSED = ((16, 32, 16), (5, 20, 7))


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was checked, whether it holds, and what was found."""

    what: str
    holds: bool
    found: str


def checks(device: str, *, rehearsal: bool) -> Iterator[Check]:
    """One after the other; a failure, of whatever kind, is a row."""
    shapes = REHEARSED if rehearsal else SHAPES
    rows: list[tuple[str, Callable[[], str]]] = [("the backend of this device", lambda: _served(device))]
    rows += [(f"casts to {fmt.name}, to the bit", lambda fmt=fmt: _casts(fmt, device)) for fmt in FORMATS.values()]
    rows += [
        (f"sums of products, {'fast' if fast else 'full'}", lambda fast=fast: _products(device, shapes, fast=fast))
        for fast in (False, True)
    ]
    rows += [
        ("E5 by E5 is refused", lambda: _refused(device)),
        ("a layer's step waits for nothing", lambda: _waits(device)),
        ("a step of a small Llama", lambda: _step(device)),
        ("a compiled cast", lambda: _compiled(device, "aot_eager" if rehearsal else "inductor")),
    ]
    for what, check in rows:
        yield _checked(what, check)


def _checked(what: str, check: Callable[[], str]) -> Check:
    try:
        return Check(what=what, holds=True, found=check())
    except Exception as error:  # noqa: BLE001  the other rows are worth having
        return Check(what=what, holds=False, found=f"{type(error).__name__}: {first_line(error)}")


def _served(device: str) -> str:
    choice = table.choose(device)
    _hold(choice.name == scaled_mm.NAME, f"{choice.name}: {choice.reason}")
    return choice.reason


def _casts(fmt: Format, device: str) -> str:
    number = 0
    for name, (whole, part) in _inputs().items():
        x, on_device = part(whole), part(whole.to(device))
        for rule in RULES:
            ours = ops.quantize(on_device, fmt, rule, counts=True, exponents=True)
            for what, found, expected in _compared(ours, x, fmt, rule):
                torch.testing.assert_close(
                    found.cpu(), expected, rtol=0, atol=0, equal_nan=True, msg=f"{what} of {name} under {rule}"
                )
            number += x.numel()
    return f"{number:,} values: codes, scales, amax, counts, histograms"


def _compared(ours: Quantized, x: Tensor, fmt: Format, rule: Rule) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What a cast gives, by name, and what plain torch gives on the CPU."""
    seen = portable.observe(x, exponents=True)
    scale_bias = rule.scale_bias(seen.amax, fmt)
    encoded = portable.encode(x, fmt, seen.amax, scale_bias, counts=True)
    observed = ours.observed
    assert observed is not None
    yield "codes", ours.codes.view(torch.uint8), encoded.codes.view(torch.uint8)
    yield "scale_bias", ours.scale_bias, torch.as_tensor(scale_bias, dtype=torch.int32)
    yield "amax", observed.amax, torch.as_tensor(seen.amax, dtype=torch.float32)
    found = [observed.saturated, observed.flushed, observed.nonfinite]
    assert encoded.counts is not None
    yield "counts", torch.stack([count for count in found if count is not None]), encoded.counts
    assert observed.exponents is not None
    assert seen.exponents is not None
    yield "exponents", observed.exponents, seen.exponents


def _inputs() -> dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """What is cast, by name: a tensor, and what of it, for a copy to a device would close gaps."""
    every = torch.arange(-(2**15), 2**15).to(torch.int16)
    draw = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (100_003,), generator=draw).to(torch.int32)
    matrix = torch.randn(257, 129, generator=draw)
    return {
        "all bfloat16": (every.view(torch.bfloat16), torch.Tensor.detach),
        "all float16": (every.view(torch.float16), torch.Tensor.detach),
        "float32 of any bits": (bits.view(torch.float32), torch.Tensor.detach),
        "a transposed matrix": (matrix, torch.Tensor.t),
        "a part of a matrix": (matrix.bfloat16(), lambda x: x[1::2, 3:]),
        "nothing": (torch.empty(0, 16), torch.Tensor.detach),
    }


def _products(device: str, shapes: tuple[tuple[int, int, int], ...], *, fast: bool) -> str:
    """All pairs and dtypes, with a bias and without."""
    worst, equal, number = 0.0, 0, 0
    e4, e5 = formats(device)
    for num_rows, num_terms, num_columns in shapes:
        for left, right in ((e4, e4), (e4, e5), (e5, e4)):
            draw = torch.Generator().manual_seed(num_terms)
            a = ops.quantize(torch.randn(num_rows, num_terms, generator=draw).to(device), left, Amax())
            b = ops.quantize(torch.randn(num_columns, num_terms, generator=draw).to(device), right, Amax()).t()
            exact = _exact(a, b)
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                bias = torch.randn(num_columns, generator=draw).to(device, dtype)
                for addend in (None, bias):
                    out = ops.matmul(a, b, dtype=dtype, bias=addend, fast=fast).cpu().double()
                    expected = exact if addend is None else exact + addend.cpu().double()
                    worst = max(worst, float((out - expected).norm() / expected.norm()))
            imitated = _imitated(a, b, fast=fast)
            if imitated is not None:
                equal += int((ops.matmul(a, b, fast=fast).cpu() == imitated).sum())
                number += imitated.numel()
    _hold(worst <= (FAST if fast else FULL), f"an error of {worst:.2g} of the product's norm")
    compared = f"; {equal:,} of {number:,} sums are the imitated ones to the bit" if number else ""
    return f"the largest error is {worst:.2g} of the product's norm{compared}"


def formats(device: str) -> tuple[str, str]:
    """E4 and E5, as this device multiplies them."""
    backend: Backend = table.choose(device).backend
    return backend.formats if isinstance(backend, scaled_mm.ScaledMM) else ("e4m3fn", "e5m2")


def recipe_of(scaling: str, device: str) -> Recipe | str:
    """A scaling in the formats that this device multiplies; high precision by its name."""
    return parse_scaling(scaling, "fnuz" if "e4m3fnuz" in formats(device) else "ocp")


def _exact(a: Quantized, b: Quantized) -> Tensor:
    unscale = 2.0 ** -float(a.scale_bias + b.scale_bias)
    return (a.codes.cpu().double() @ b.codes.cpu().double()) * unscale


def _imitated(a: Quantized, b: Quantized, *, fast: bool) -> Tensor | None:
    """The sums of a tensor core that has been described, computed by the C++ core; None without either."""
    name = IMITATED.get(torch.cuda.get_device_capability()) if torch.cuda.is_available() else None
    if name is None or torch.version.hip is not None:
        return None
    here = [replace(x, codes=x.codes.cpu(), scale_bias=x.scale_bias.cpu(), observed=None) for x in (a, b)]
    try:
        return ops.matmul(*here, fast=fast, accumulate=name)
    except UserError:
        return None


def _refused(device: str) -> str:
    _, e5 = formats(device)
    x = ops.quantize(torch.ones(16, 16, device=device), e5, Amax())
    try:
        ops.matmul(x, x)
    except UserError as error:
        return first_line(error)
    raise AssertionError(f"{e5} by {e5} was multiplied")


def _waits(device: str) -> str:
    """Forward and backward of a layer while torch raises an error for each read of a number."""
    linear = nn.Linear(64, 48, bias=False, device=device)
    layer = fp8_layer(linear, "checked", device)
    x = torch.randn(32, 64, device=device, requires_grad=True)
    layer(x).sum().backward()  # what is made once may wait
    with torch.no_grad():
        layer.weight.mul_(1.0)  # a write, after which the weight is cast anew
    if device != "cuda":
        return "not on a CPU, where nothing waits"
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        layer(x).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return "forward and backward under torch.cuda.set_sync_debug_mode('error')"


def fp8_layer(linear: nn.Module, name: str, device: str) -> nn.Module:
    """A linear layer in FP8, scaled by AMAX."""
    recipe = recipe_of("amax", device)
    assert isinstance(recipe, Recipe)
    return to_fp8(linear, LayerName(module=name, layer=None, kind="other"), recipe)


def _step(device: str) -> str:
    """Loss and gradients beside those of the CPU."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads))
    recipe = recipe_of("amax", device)
    loss, grads = _loss_and_grads(model, recipe, device)
    with table.instead("cpu", table.Choice(name="portable", backend=cast(Backend, portable), reason="the oracle")):
        expected, theirs = _loss_and_grads(model, recipe, "cpu")
    off = float((loss.cpu() - expected).abs() / expected)
    norm = float((grads.cpu() - theirs).norm() / theirs.norm())
    _hold(off <= FULL and norm <= 5 * FULL, f"a loss that is {off:.2g} off, gradients {norm:.2g}")
    return f"the loss is {off:.2g} off the CPU's, its gradients {norm:.2g} of their norm"


def _loss_and_grads(model: nn.Module, recipe: Any, device: str) -> tuple[Tensor, Tensor]:
    model = copy.deepcopy(model).to(device).train()
    convert(model, recipe)
    ids = torch.arange(48, device=device).view(2, 24)
    loss: Tensor = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def _compiled(device: str, compiler: str) -> str:
    def codes_of(x: Tensor) -> Tensor:
        return ops.quantize(x, "e4m3fn", Amax()).codes.view(torch.uint8)

    x = torch.randn(129, 257, generator=torch.Generator().manual_seed(0)).to(device)
    _hold(torch.equal(torch.compile(codes_of, fullgraph=True, backend=compiler)(x), codes_of(x)), "other codes")
    return f"the codes of eager mode, by {compiler}"


def _hold(claim: bool, otherwise: str) -> None:
    if not claim:
        raise AssertionError(otherwise)
