"""torch._scaled_mm, on torch's CPU kernel. Oracles: float64, the portable backend; of GPUs, what their makers say."""

from dataclasses import dataclass, field, replace
from unittest import mock

import pytest
import torch
from models import tiny_gpt2, tiny_llama
from products import assert_product_within_bound
from tensors import DTYPES, normal
from torch import nn

from octoscale.conversion.convert import convert
from octoscale.kernels import portable, scaled_mm, table
from octoscale.kernels.ops import in_columns, linear, matmul, quantize
from octoscale.layers.linear import to_fp8
from octoscale.numerics.recipe import Recipe
from octoscale.numerics.scaling import Amax, Constant
from octoscale.runs.scales import LayerName
from octoscale.system.errors import UserError

BACKEND = scaled_mm.ScaledMM(("e4m3fn", "e5m2"))
PAIRS = [("e4m3fn", "e4m3fn"), ("e4m3fn", "e5m2"), ("e5m2", "e4m3fn")]
#: Rows, terms, columns: multiples of 16, and not.
SHAPES = [
    (16, 16, 16),
    (1, 32, 16),
    (3, 17, 5),
    (33, 100, 7),
    (1, 1, 1),
    (64, 1030, 48),
    (0, 16, 16),
    (4, 0, 3),
    (2, 5, 0),
]


@pytest.fixture
def served():
    """It serves the CPU."""
    choice = replace(table.choose("cpu"), name=scaled_mm.NAME, backend=BACKEND)
    with mock.patch.object(table, "choose", return_value=choice):
        yield


def operands(shape, pair, layouts=("rows", "columns")):
    """Two operands that lie row by row, column by column, or with gaps."""
    num_rows, num_terms, num_columns = shape
    made = []
    for sizes, fmt, layout, seed in zip(
        ((num_rows, num_terms), (num_terms, num_columns)), pair, layouts, (1, 2), strict=True
    ):
        x = normal(*(sizes if layout == "rows" else sizes[::-1]), seed=seed) * 10.0 ** (1 - seed)
        cast = quantize(x, fmt, Amax())
        made.append(cast if layout == "rows" else cast.t())
    return made


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_within_the_bound(shape, pair, dtype):
    a, b = operands(shape, pair)
    for bias in (None, normal(shape[2], seed=3).to(dtype), normal(shape[2], seed=3)):
        out = matmul(a, b, dtype=dtype, bias=bias)
        assert out.dtype == dtype
        assert out.is_contiguous()
        assert_product_within_bound(a, b, out, bias)


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("dtype", DTYPES)
def test_autocast_rounds_no_sum(dtype):
    """Oracle: the same product outside of autocast."""
    a, b = operands((33, 100, 7), PAIRS[0])
    bias = normal(7, seed=3)
    with torch.autocast("cpu", torch.bfloat16):
        found = matmul(a, b, dtype=dtype, bias=bias)
    assert torch.equal(found, matmul(a, b, dtype=dtype, bias=bias))


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("layouts", [(a, b) for a in ("rows", "columns") for b in ("rows", "columns")])
@pytest.mark.parametrize("shape", [(48, 32, 64), (3, 17, 5)])
def test_operands_may_lie_as_they_like(shape, layouts):
    """The layouts of output, grad_input and grad_weight, of nn.Linear and Conv1D."""
    a, b = operands(shape, PAIRS[0], layouts)
    assert_product_within_bound(a, b, matmul(a, b))
    wide = replace(a, codes=torch.cat([a.codes, a.codes], dim=1)[:, : shape[1]])
    assert torch.equal(matmul(wide, b), matmul(a, b))


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_what_lies_in_columns_is_not_copied_again(layout):
    _, b = operands((3, 32, 48), PAIRS[0], ("rows", layout))
    once = in_columns(b)
    assert (once is b) == (layout == "columns")
    assert torch.equal(once.codes.float(), b.codes.float())
    assert in_columns(once) is once


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("biases", [(100, 20), (-100, -20), (97, 46), (126, 126), (-100, -60)])
def test_scales_that_leave_float32_together_lose_only_what_is_tiny(biases):
    """Below 1e-26 zero will do; what is too large is no finite number that is wrong."""
    a, b = (quantize(normal(16, 16, seed=i), "e4m3fn", Constant(0)) for i in range(2))
    a, b = (
        replace(x, scale_bias=torch.tensor(bias, dtype=torch.int32)) for x, bias in zip((a, b), biases, strict=True)
    )
    out, expected = matmul(a, b.t()), portable.matmul(a, b.t(), None, torch.float32)
    finite = out.isfinite()
    torch.testing.assert_close(out[finite], expected[finite], rtol=1e-5, atol=1e-26)
    assert finite.all() == (sum(biases) > -127)


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("shape", [(1, 64, 32), (16, 16, 1), (1, 16, 1), (64, 32, 48), (3, 17, 5)])
@pytest.mark.parametrize("layouts", [("rows", "columns"), ("columns", "rows"), ("columns", "columns")])
def test_operands_lie_as_the_hardware_asks(shape, layouts):
    """Oracle: torch's own check of a GPU's operands, which its CPU kernel does without."""
    a, b = operands(shape, PAIRS[0], layouts)
    seen = []
    real = torch._scaled_mm
    with mock.patch.object(
        torch, "_scaled_mm", side_effect=lambda *args, **more: seen.append(args) or real(*args, **more)
    ):
        matmul(a, b)
    left, right, *scales = seen[0]
    like = [torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta") for x in (left, right)]
    real(*like, *(scale.to("meta") for scale in scales), out_dtype=torch.float32)
    assert left.stride() == (left.shape[1], 1)
    assert right.stride() == (1, right.shape[0])
    assert left.shape[1] % 16 == 0
    assert right.shape[1] % 16 == 0


@pytest.mark.usefixtures("served")
def test_bfloat16_values_are_multiplied_as_they_are():
    x, w = normal(3, 40, seed=1).bfloat16(), quantize(normal(7, 40, seed=2), "e4m3fn", Amax())
    assert torch.equal(linear(x, w), portable.matmul(x, w.t(), None, torch.bfloat16))


@pytest.mark.usefixtures("served")
def test_a_pair_that_no_hardware_takes_is_refused():
    a, b = operands((16, 16, 16), ("e5m2", "e5m2"))
    with pytest.raises(UserError, match="no tensor core multiplies e5m2 by e5m2: one of the operands has to be e4m3fn"):
        matmul(a, b)


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("pair", [("e4m3fnuz", "e4m3fn"), ("e4m3fnuz", "e5m2fnuz"), ("e5m2fnuz", "e5m2fnuz")])
def test_other_formats_go_the_way_of_plain_torch(pair):
    a, b = operands((16, 16, 16), pair)
    assert torch.equal(matmul(a, b), portable.matmul(a, b, None, torch.float32))


def test_no_gradient_goes_through_a_bias(served):
    a, b = operands((16, 16, 16), PAIRS[0])
    assert not matmul(a, b, bias=nn.Parameter(torch.ones(16))).requires_grad


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["nn.Linear", "Conv1D"])
@pytest.mark.parametrize("rule", ["amax", "cscale"])
def test_a_step_is_that_of_the_portable_backend(make, rule):
    """Forward and backward; two micro-batches, of which the second reuses the weight's copy."""
    found = []
    for backend in (BACKEND, portable):
        with mock.patch.object(table, "choose", return_value=replace(table.choose("cpu"), backend=backend)):
            torch.manual_seed(0)
            model = make().train()
            convert(model, Recipe.amax() if rule == "amax" else Recipe.cscale(2))
            ids = torch.randint(0, model.config.vocab_size, (2, 2, 9), generator=torch.Generator().manual_seed(1))
            torch.manual_seed(1)
            losses = [model(input_ids=batch, labels=batch).loss for batch in ids]
            for loss in losses:
                loss.backward()
            found.append((losses, [parameter.grad for parameter in model.parameters()]))
    (ours, grads), (theirs, expected) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)
    for grad, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, other, rtol=0, atol=0.02 * float(other.abs().max()) + 1e-9)


@dataclass(frozen=True)
class Counted(scaled_mm.ScaledMM):
    """It notes which weights it copies."""

    copied: list[int] = field(default_factory=list)

    def in_columns(self, codes_KN):
        columns = super().in_columns(codes_KN)
        if columns is not codes_KN:
            self.copied.append(codes_KN.data_ptr())
        return columns


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["nn.Linear", "Conv1D"])
def test_a_weight_is_copied_once_for_all_micro_batches(make):
    backend = Counted(BACKEND.formats)
    with mock.patch.object(table, "choose", return_value=replace(table.choose("cpu"), backend=backend)):
        model = make().train()
        converted = convert(model, Recipe.amax()).converted
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ids = torch.randint(0, model.config.vocab_size, (2, 9))
        for steps in (1, 2):
            for _ in range(3):
                model(input_ids=ids, labels=ids).loss.backward()
            assert len(backend.copied) == steps * len(converted)
            optimizer.step()


def test_a_copy_is_not_used_after_a_write(served):
    """As load_state_dict writes into stored codes: the memory stays the same."""
    layer = to_fp8(nn.Linear(32, 16, bias=False), LayerName(module="m", layer=None, kind="other"), Recipe.amax())
    w8 = layer.fp8.cast_weight(layer.weight.detach(), inference=False)
    once = layer.fp8.weight_in_columns(w8)
    assert layer.fp8.weight_in_columns(w8) is once
    w8.codes.view(torch.uint8).fill_(0)
    assert torch.equal(layer.fp8.weight_in_columns(w8).codes.float(), torch.zeros(16, 32))


def test_stored_codes_are_copied_each_time(served):
    """A write to their parameter's `data` leaves no trace, not even a version."""
    model = nn.Linear(32, 16, bias=False)
    layer = to_fp8(model, LayerName(module="m", layer=None, kind="other"), Recipe.amax())
    w8 = replace(layer.fp8.cast_weight(layer.weight.detach(), inference=False), observed=None)
    layer.fp8.runtime.weight = (layer.fp8.runtime.weight[0], w8)
    assert layer.fp8.weight_in_columns(w8) is not layer.fp8.weight_in_columns(w8)


@pytest.mark.parametrize(
    ("is_amd", "models", "why"),
    [
        (False, [(9, 0)], None),
        (False, [(8, 9), (10, 0)], None),
        (False, [(8, 0)], "compute capability 8.0, has no FP8: it begins with 8.9"),
        (False, [(9, 0), (7, 5)], "compute capability 7.5, has no FP8"),
        (True, ["gfx942"], None),
        (True, ["gfx950"], None),
        (True, ["gfx90a"], "gfx90a, has no FP8 products that torch._scaled_mm takes: gfx942"),
        (True, ["gfx942", "gfx950"], "gfx942, gfx950, take different formats"),
    ],
)
def test_gpus_that_multiply_fp8_are_known(is_amd, models, why):
    """Oracle: NVIDIA's and AMD's data sheets, as the module quotes them."""
    found = scaled_mm.why_not_gpus(is_amd, models)
    assert (found is None) == (why is None)
    assert why is None or why in found


@pytest.mark.parametrize("device", ["mps", "xpu", "meta"])
def test_other_devices_say_that_they_get_plain_torch(device, monkeypatch):
    monkeypatch.setattr(table, "_choices", {})
    choice = table.choose(device)
    assert choice.name == "portable"
    assert f"torch._scaled_mm serves CUDA and ROCm, not {device}" in choice.reason


def test_a_gpu_without_fp8_gets_plain_torch_and_says_why(monkeypatch):
    monkeypatch.setattr(table, "_choices", {})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=0: (8, 0))
    choice = table.choose("cuda")
    assert choice.name == "portable"
    assert (
        "this GPU, of compute capability 8.0, has no FP8: it begins with 8.9; plain torch, bf16 GEMM" in choice.reason
    )


def test_an_h100_gets_scaled_mm(monkeypatch):
    monkeypatch.setattr(table, "_choices", {})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=0: (9, 0))
    choice = table.choose("cuda")
    assert (choice.name, choice.backend.formats) == ("scaled_mm", BACKEND.formats)
    products = "torch._scaled_mm on compute capability 9.0 of e4m3fn and e5m2, bf16 GEMM of other formats, and of"
    assert products in choice.reason


def test_a_cpu_gets_it_only_by_name(monkeypatch):
    monkeypatch.setattr(table, "_choices", {})
    assert table.choose("cpu").name != "scaled_mm"
    monkeypatch.setattr(table, "_choices", {})
    monkeypatch.setenv(table.BACKEND_VARIABLE, "scaled_mm")
    assert table.choose("cpu").backend == BACKEND
