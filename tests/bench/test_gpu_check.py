"""The script for machines with a GPU, rehearsed on a CPU. Oracles: plain torch's casts, arithmetic, what it wrote."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from octoscale.kernels import portable, scaled_mm, table
from octoscale.models.sizes import SIZES
from octoscale.numerics.formats import FORMATS

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def script(monkeypatch):
    """The script; the size that it rehearses on is gone afterwards."""
    monkeypatch.syspath_prepend(BENCH)
    import gpu_check

    monkeypatch.setitem(SIZES, gpu_check.REHEARSED, gpu_check.TINY)
    return gpu_check


def test_a_machine_without_a_gpu_is_told_so_in_one_line(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script.main(["--json", str(tmp_path / "found.json")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "finds no GPU on this machine; --device cpu rehearses the script" in err
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_without_fp8_is_told_so(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=0: (8, 0))
    assert script.main(["--json", str(tmp_path / "found.json")]) == 2
    assert "compute capability 8.0, has no FP8: it begins with 8.9" in capsys.readouterr().err


@pytest.mark.slow
def test_a_rehearsal_runs_all_of_it(script, tmp_path):
    file = tmp_path / "folder" / "found.json"
    assert script.main(["--device", "cpu", "--json", str(file)]) == 0
    found = json.loads(file.read_text("utf-8"))
    assert found["rehearsal"]
    assert [row["what"] for row in found["checks"] if not row["holds"]] == []
    assert len(found["checks"]) == 11
    assert [(row["kind"], row["in_features"], row["out_features"]) for row in found["layers"]] == [
        ("attn_qkv", 32, 96),
        ("attn_out", 32, 32),
        ("ffn_in", 32, 64),
        ("ffn_out", 64, 32),
    ]
    assert [row["scaling"] for row in found["steps"]] == ["bf16", "amax", "cscale:0"]
    assert all(seconds > 0 for row in found["layers"] for seconds in row["seconds"].values())
    assert all("left out" not in row for row in found["steps"])
    page = file.with_suffix(".md").read_text("utf-8")
    assert "No figure here is one of a GPU" in page
    assert "All 11 hold." in page
    assert [line.split(" | ")[1] for line in page.splitlines() if line.startswith("| rehearsal |")] == [
        *(row["kind"] for row in found["layers"]),
        *(row["scaling"] for row in found["steps"]),
    ]
    assert table.choose("cpu").name != scaled_mm.NAME


@dataclass(frozen=True)
class Wrong:
    """Casts that are wrong in one thing."""

    what: str

    def observe(self, x, *, exponents):
        seen = portable.observe(x, exponents=exponents)
        if self.what == "exponents" and exponents:
            return seen._replace(exponents=seen.exponents + (torch.arange(256) == 3))
        return seen._replace(amax=2 * seen.amax) if self.what == "amax" else seen

    def encode(self, x, fmt, amax, scale_bias, *, counts):
        encoded = portable.encode(x, fmt, amax, scale_bias, counts=counts)
        if self.what == "counts" and counts:
            return encoded._replace(counts=encoded.counts + torch.tensor([0, 1, 0]))
        if self.what == "codes" and x.numel():
            encoded.codes.view(torch.uint8).view(-1)[-1:] ^= 1
        return encoded

    def cast(self, x, fmt, scale_bias, *, counts, exponents):
        seen = self.observe(x, exponents=exponents)
        return seen, self.encode(x, fmt, seen.amax, scale_bias, counts=counts)

    def cast_groups(self, x, fmt, rule, granularity, *, counts, exponents):
        return portable.cast_groups(x, fmt, rule, granularity, counts=counts, exponents=exponents)


@pytest.mark.parametrize("what", ["codes", "amax", "counts", "exponents"])
def test_a_wrong_cast_is_found(script, what):
    import gpu_correct

    backend = scaled_mm.ScaledMM(("e4m3fn", "e5m2"), Wrong(what))
    with table.instead("cpu", replace(table.choose("cpu"), backend=backend)):
        check = gpu_correct._checked("casts", lambda: gpu_correct._casts(FORMATS["e5m2"], "cpu"))
    assert not check.holds
    assert check.found.startswith(f"AssertionError: {what} of all bfloat16" if what != "amax" else "AssertionError: ")


def test_a_wrong_product_is_found(script, monkeypatch):
    import gpu_correct

    matmul = gpu_correct.ops.matmul
    monkeypatch.setattr(gpu_correct.ops, "matmul", lambda a, b, **words: matmul(a, b, **words) * 1.06)
    for fast in (False, True):
        check = gpu_correct._checked("sums", lambda fast=fast: gpu_correct._products("cpu", ((4, 8, 4),), fast=fast))
        assert not check.holds
        assert "of the product's norm" in check.found


def test_a_failed_check_is_exit_code_1(script, tmp_path, monkeypatch):
    from gpu_correct import Check

    failed = Check(what="sums", holds=False, found="wrong")
    monkeypatch.setattr(script, "_parts", lambda *_: [("checks", [vars(failed)])])
    assert script.main(["--device", "cpu", "--json", str(tmp_path / "found.json")]) == 1
    assert "1 of 1 do **not** hold" in (tmp_path / "found.md").read_text("utf-8")
    assert "| sums | **no** | wrong |" in (tmp_path / "found.md").read_text("utf-8")


def test_limits_by_hand(script):
    """A GEMM of 2 x 3 x 5 at 60 operations a second, bytes at 100 a second. Forward in bf16: 60 / 60, or 62 / 100."""
    import gpu_speed

    limit = {"operations a second": {"bf16": 60.0, "fp8 fast": 1e9, "fp8 full": 6.0}, "bytes a second": 100.0}
    assert gpu_speed._limits_of(2, 3, 5, limit) == pytest.approx(
        {
            "bf16 forward": 1.0,
            "bf16 backward": 2.0,
            "fp8 forward": (5 * 6 + (6 + 15) + 2 * 10) / 100,
            "fp8 backward": 120 / 6,
            "cast": 30 / 100,
        }
    )


def test_a_layers_shapes_are_the_models(script):
    """Oracle: Llama 2 70B as its paper says: 8 of 64 heads for keys and values."""
    import gpu_speed

    assert gpu_speed._shapes("llama2-70b") == [
        ("attn_qkv", 8192, 8192),
        ("attn_qkv", 8192, 1024),
        ("attn_out", 8192, 8192),
        ("ffn_in", 8192, 28672),
        ("ffn_out", 28672, 8192),
    ]


def test_a_step_that_does_not_fit_says_what_it_needs(script, monkeypatch):
    import gpu_page
    import gpu_speed

    monkeypatch.setattr(gpu_speed, "_free", lambda _: 200_000)
    rows = list(gpu_speed.step("rehearsal", 16, "cpu"))
    assert all(row["left out"] == "needs 0.0 GB, and 0.0 GB are free" for row in rows)
    assert all(row["bytes planned"] > 0.9 * 200_000 for row in rows)
    assert gpu_page._step(rows[0])[:4] == ["rehearsal", "bf16", "16", rows[0]["left out"]]
