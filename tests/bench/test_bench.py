"""The benchmarks compute what they promise; nothing here looks at how long anything took. Oracle: arithmetic."""

import math
import sys

import pytest
import torch
from models import tiny_llama

from octoscale.bench import checkpoint, generate, kernels, train
from octoscale.kernels import ops
from octoscale.models import loading
from octoscale.numerics.scaling import Amax
from octoscale.report import terminal


@pytest.fixture(scope="module")
def cast_report():
    return kernels.quantize(size=1 << 12, rounds=1)


@pytest.fixture(scope="module")
def product_report():
    return kernels.linear(decode_shape=(1, 64, 48), prefill_shape=(32, 64, 48), rounds=1, rate_size=64)


def test_the_ratios_follow_from_the_seconds(cast_report):
    seconds, ratios = cast_report["seconds"], cast_report["ratios"]
    ours = seconds[kernels._best()]
    limit = 9 / 4 * seconds["read bandwidth"]  # 4 + 4 bytes read, 1 written; the probe reads 4
    overhead = seconds["ours, counts and histogram"] / seconds["ours, nothing counted"] - 1
    assert ratios["speedup_over_torch_eager"] == pytest.approx(seconds["torch eager"] / ours)
    assert ratios["fraction_of_limit"] == pytest.approx(limit / ours)
    assert ratios["telemetry_overhead"] == pytest.approx(overhead)
    assert (ratios["speedup_over_torchao"] is None) == ("torchao" not in seconds)


def test_the_ratios_of_products_follow_from_the_seconds(product_report):
    decode, prefill = product_report["seconds"]["decode"], product_report["seconds"]["prefill"]
    ratios, limits = product_report["ratios"], product_report["limits"]
    assert ratios["decode_speedup_over_bf16"] == pytest.approx(decode["F.linear bf16"] / decode["W8A16"])
    assert ratios["decode_W8A8_speedup_over_bf16"] == pytest.approx(decode["F.linear bf16"] / decode["W8A8"])
    bytes_per_second = 64 * 48 / decode["W8A16"]
    assert ratios["decode_fraction_of_bandwidth"] == pytest.approx(bytes_per_second / limits["read_GB_per_s"] / 1e9)
    assert ratios["prefill_time_over_bf16"] == pytest.approx(prefill["W8A8"] / prefill["F.linear bf16"])
    assert ratios["prefill_speedup_over_scaled_mm"] == pytest.approx(prefill["torch._scaled_mm"] / prefill["W8A8"])
    assert all(math.isfinite(value) and value > 0 for value in ratios.values())


@pytest.mark.parametrize("granularity", ["row", "block", "mx"])
def test_the_ratios_of_groups_follow_from_the_seconds(granularity):
    report = kernels.quantize_groups(granularity, size=1 << 13, rounds=1)
    seconds, ratios = report["seconds"], report["ratios"]
    ours = seconds[kernels._best()]
    assert f"8192 values, float32 -> e4m3fn, amax:{granularity}, counts" == report["what"]
    assert ratios["fraction_of_limit"] == pytest.approx(5 / 4 * seconds["read bandwidth"] / ours)
    assert ratios["time_over_tensor"] == pytest.approx(ours / seconds["ours, a scale a tensor"])
    assert ratios["speedup_over_torch_eager"] == pytest.approx(seconds["portable"] / ours)
    products = kernels.linear_groups(granularity, decode_shape=(1, 64, 48), prefill_shape=(32, 64, 48), rounds=1)
    decode, prefill = products["seconds"]["decode"], products["seconds"]["prefill"]
    assert products["ratios"]["decode_time_over_tensor"] == decode[granularity] / decode["a scale a tensor"]
    assert products["ratios"]["prefill_time_over_bf16"] == prefill[granularity] / prefill["F.linear bf16"]
    assert "time over tensor" in [str(cell) for cell in terminal.bench_table(report).columns[0].cells]


def test_every_candidate_makes_the_same_cast():
    """torch, torchao and ml_dtypes are measured on the work that ours does. Oracle: each other."""
    x = torch.randn(1000)
    codes = ops.quantize(x, "e4m3fn", Amax()).codes.view(torch.uint8)
    assert torch.equal(kernels._cast_by_torch(x).view(torch.uint8), codes)
    if kernels.has("ml_dtypes"):
        assert torch.equal(torch.from_numpy(kernels._cast_by_ml_dtypes(x)().view("uint8")), codes)
    if kernels.has("torchao"):
        assert torch.equal(kernels._cast_by_torchao(x)().view(torch.uint8), codes)


def test_the_table_shows_every_figure(cast_report, product_report):
    for report in (cast_report, product_report):
        names = [str(cell) for cell in terminal.bench_table(report).columns[0].cells]
        figures = sum(len(terminal.flatten_names(report[part])) for part in ("seconds", "limits", "ratios"))
        assert len(names) == 1 + len(report["machine"]) + figures


def test_alternate_takes_turns_and_gives_medians():
    calls = []
    medians = kernels.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert set(medians) == {"a", "b"}


def test_neighbours_are_compared_in_both_orders(monkeypatch):
    now, calls = [0.0], []

    def take(name, seconds):
        calls.append(name)
        now[0] += seconds * (1 if len(calls) <= 4 else 10)  # then the host slows down

    monkeypatch.setattr(kernels.time, "perf_counter", lambda: now[0])
    assert kernels.time_over(lambda: take("a", 2), lambda: take("b", 3), rounds=2) == pytest.approx(1.5)
    assert calls == ["b", "a", "a", "b"] * 2


def test_a_training_step_is_measured_with_the_ratios_that_are_promised(monkeypatch):
    """Oracle: FP8 keeps one byte where bfloat16 keeps two, of the inputs and of the weights."""
    small = loading.Size(
        family="gpt", d_model=64, num_layers=2, num_heads=2, num_kv_heads=2, d_ffn=256, max_positions=64
    )
    monkeypatch.setitem(loading.SIZES, "gpt-111m", small)
    report = train.train("gpt-111m", batch=2, window=32, rounds=1)
    assert set(report["ratios"]) == {
        "step_time_over_bf16",
        "cscale_step_time_over_bf16",
        "speedup_over_torchao",
        "saved_bytes_over_bf16",
        "recorder_time_over_none",
    }
    assert report["ratios"]["saved_bytes_over_bf16"] == pytest.approx(0.5, abs=0.01)


def test_torchao_gets_linear_layers_that_compute_what_conv1d_does():
    """Oracle: transformers' Conv1D; the sums have another order."""
    from transformers.pytorch_utils import Conv1D

    conv1d = Conv1D(6, 4)
    x = torch.randn(3, 4)
    torch.testing.assert_close(train._linear_of(conv1d)(x), conv1d(x))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_the_benchmark_of_checkpoints_measures_copies_of_the_same_bytes(tmp_path):
    tiny_llama().to(torch.bfloat16).save_pretrained(tmp_path / "model")
    report = checkpoint.checkpoint(str(tmp_path / "model"), rounds=1)
    memory, seconds, ratios = report["memory, MB"], report["seconds"], report["ratios"]
    largest = max(p.numel() for p in tiny_llama().parameters()) * 2 / 1e6
    assert (memory["largest tensor"], memory["bound"]) == pytest.approx((largest, 3 * largest + 300))
    assert ratios["rate_over_cp"] == seconds["cp"] / seconds["quantize"]
    assert memory["quantize"] > 50
    assert ratios["memory_over_bound"] == pytest.approx(memory["quantize"] / memory["bound"])
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    terminal.bench_table(report)


@pytest.fixture
def slow_product(monkeypatch):
    """`torch._scaled_mm` on a clock of its own: 70 s for the first call of a shape, and 2 + 0.25 s a row."""
    now, rows = [0.0], []

    def slow(a, b, *_, **__):
        now[0] += 2 + 0.25 * a.shape[0] + (0 if a.shape[0] in rows else 70)
        rows.append(a.shape[0])
        return torch.zeros(a.shape[0], b.shape[1], dtype=torch.bfloat16)

    monkeypatch.setattr(torch, "_scaled_mm", slow)
    monkeypatch.setattr(kernels.time, "perf_counter", lambda: now[0])
    return rows, lambda seconds: now.__setitem__(0, now[0] + seconds)


def _products(monkeypatch, pass_time, rows):
    """The report of a small product, in which everything else takes a second."""
    seconds = dict.fromkeys(("F.linear bf16", "W8A8", "W8A16"), 1.0)
    monkeypatch.setattr(kernels, "_decode", lambda *_: (seconds, 1.0))
    for owner, name in ((kernels.functional, "linear"), (torch, "mm"), (kernels.ops, "linear")):
        monkeypatch.setattr(owner, name, lambda *_: pass_time(1.0))
    return kernels.linear(prefill_shape=(rows, 64, 48), rounds=1, rate_size=64)


def test_a_product_that_takes_minutes_is_estimated_from_a_few_rows_and_says_so(slow_product, monkeypatch):
    """Oracle: the line by which the clock goes; what the first call of a shape takes is not on it."""
    rows, pass_time = slow_product
    report = _products(monkeypatch, pass_time, 512)
    assert rows == [8, 64] * 2
    assert report["seconds"]["prefill"]["torch._scaled_mm"] == pytest.approx(2 + 0.25 * 512)
    assert report["ratios"]["prefill_speedup_over_scaled_mm"] == pytest.approx(2 + 0.25 * 512)
    told = {name: value for name, value in _shown(report) if "estimated" in value}
    assert told == {
        "prefill: torch. scaled mm": "130000.000 ms, estimated from 8 and 64 of its rows",
        "prefill speedup over scaled mm": "130, estimated from 8 and 64 of its rows",
    }


def test_a_product_that_is_fast_takes_turns_with_the_others(slow_product, monkeypatch):
    rows, pass_time = slow_product
    monkeypatch.setattr(kernels, "TOO_SLOW", 200.0)
    report = _products(monkeypatch, pass_time, 128)
    assert rows == [8, 64, 8, 64, 128, 128]
    assert report["seconds"]["prefill"]["torch._scaled_mm"] == pytest.approx(2 + 0.25 * 128)
    assert report["estimated"] == {}
    assert not any("estimated" in value for _, value in _shown(report))


def test_no_more_rows_are_tried_than_there_are(slow_product):
    """Oracle: the clock, whose rows are then all measured."""
    rows, _ = slow_product
    assert kernels.seconds_by_slope(lambda n: torch._scaled_mm(torch.ones(n, 1), torch.ones(1, 1)), 4) == 3.0
    assert set(rows) == {4}


def _shown(report):
    """The rows of a report's table: name and value."""
    columns = [[str(cell) for cell in column.cells] for column in terminal.bench_table(report).columns]
    return list(zip(*columns, strict=True))


def test_the_ratios_of_generation_follow_from_the_speeds(tmp_path):
    """Each token of both passes the fused path, or the benchmark is an error."""
    tiny_llama(hidden_size=64, intermediate_size=128, max_position_embeddings=1024).bfloat16().save_pretrained(tmp_path)
    for granularity in ("row", "block"):
        report = generate.generate_groups(granularity, str(tmp_path), rounds=1)
        for what in ("decode", "prefill"):
            speeds = report[f"{what}, tokens/s"]
            assert list(speeds) == ["tensor", granularity]
            ratio = report["ratios"][f"{what}_speed_over_tensor"]
            assert ratio == pytest.approx(speeds[granularity] / speeds["tensor"])
