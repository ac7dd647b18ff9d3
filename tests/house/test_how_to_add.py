"""The recipes of docs/design.md, followed: a format, a rule, a backend, a figure, and the product knows it.

Oracles: ml_dtypes for the format; the rule's own promise in the record of a model; plain torch for the backend.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import ml_dtypes
import numpy as np
import polars as pl
import pytest
import torch
from models import tiny_llama, tokens
from written_runs import SUMMARY, small_run, write_run

import octoscale
from octoscale.kernels import portable, table
from octoscale.numerics import recipe, reference
from octoscale.numerics.formats import FORMAT_SETS, FORMATS, Format
from octoscale.numerics.scaling import Amax, amax_to_scale_bias
from octoscale.report.figures.of_run import FIGURES, SHOWS, RunFigure
from octoscale.report.figures.style import REPORT, get_style, styled


@pytest.fixture
def e3m4(monkeypatch):
    """Steps 1 and 2 of a format: its row, and a set with it."""
    fmt = Format(name="e3m4", exponent_bits=3, mantissa_bits=4, bias=3, special="ieee", paper_name="none")
    monkeypatch.setitem(FORMATS, "e3m4", fmt)
    monkeypatch.setitem(FORMAT_SETS, "fine", {"weight": "e3m4", "input": "e3m4", "grad_output": "e5m2"})
    return fmt


def test_a_format_is_a_row(e3m4, run):
    """All 256 codes have the values of ml_dtypes' float8_e3m4, and the commands know the name."""
    values = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e3m4).astype(np.float64)
    np.testing.assert_array_equal([reference.decode(code, e3m4) for code in range(256)], values)
    assert e3m4.max == float(ml_dtypes.finfo(ml_dtypes.float8_e3m4).max)
    for x in np.linspace(-15, 15, 101):
        assert reference.round(float(x), e3m4) == float(np.float64(x).astype(ml_dtypes.float8_e3m4))
    assert "e3m4" in run("formats")[1]


def test_a_set_of_formats_is_a_word_of_a_scaling(e3m4):
    parsed = octoscale.parse_scaling("amax:formats=fine")
    assert [parsed.operand(role).format for role in ("weight", "input", "grad_output")] == ["e3m4", "e3m4", "e5m2"]


def test_a_format_without_a_dtype_is_refused_in_a_line_and_leaves_the_others_as_they_are(e3m4, run, tmp_path):
    """Step 3: of a set that is used, and of a tensor that is cast."""
    says = "no tensor can hold codes of e3m4: .* no dtype float8_e3m4; only octoscale.numerics.reference"
    with pytest.raises(octoscale.UserError, match=says):
        octoscale.convert(tiny_llama(), octoscale.parse_scaling("amax:formats=fine"))
    with pytest.raises(octoscale.UserError, match=says):
        octoscale.quantize(torch.ones(3), "e3m4", Amax())
    tiny_llama().save_pretrained(tmp_path / "model")
    code, _, err = run("inspect", tmp_path / "model", "--formats", "fine")
    assert code == 2
    assert re.fullmatch(f"octoscale: error: {says}.*", err.splitlines()[-1])


def test_a_row_that_is_there_from_the_beginning_shifts_no_number_of_the_core():
    """Before all other rows: what is made of the rows when modules are read. Oracle: casts without the toy."""
    code = """if True:
        from octoscale.numerics import formats
        toy = formats.Format(name="e3m4", exponent_bits=3, mantissa_bits=4, bias=3, special="ieee", paper_name="none")
        rows = dict(formats.FORMATS)
        formats.FORMATS.clear()
        formats.FORMATS.update({"e3m4": toy} | rows)
        import torch, octoscale, octoscale.checkpoints.quantizer, octoscale.kernels.decoder as decoder
        x, others = torch.linspace(-3, 3, 64), ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz")
        for name in others:
            codes = octoscale.quantize(x, name, octoscale.numerics.scaling.Constant(2)).codes
            assert torch.equal(codes.float(), (x * 4).to(codes.dtype).float()), name
        assert [decoder._number_of(name) for name in others] == [0, 1, 2, 3]
    """
    subprocess.run([sys.executable, "-c", code], check=True)


@dataclass(frozen=True, kw_only=True)
class Even:
    """Step 1 of a rule: amax's scale, or the even one below it."""

    granularity: ClassVar[str] = "tensor"

    def scale_bias(self, amax, fmt, history=None):
        return amax_to_scale_bias(amax, fmt) // 2 * 2

    def __str__(self):
        return "even"


def test_a_rule_needs_no_change_of_layers_records_or_figures(monkeypatch, tmp_path):
    """Step 2, then a model in FP8 under it: each scale in the record is even, and amax's or one below."""

    def even(cls, formats="ocp", skip=()):
        return cls._uniform(Even(), formats, skip)

    monkeypatch.setattr(octoscale.Recipe, "even", classmethod(even), raising=False)
    monkeypatch.setitem(recipe._FORMS, "even", (("even", frozenset(), frozenset()),))
    made = octoscale.parse_scaling("even")
    assert made.name == str(Even())
    model, ids = tiny_llama(), tokens()
    octoscale.convert(model, made)
    with octoscale.record(model, tmp_path / "run"):
        model(input_ids=ids, labels=ids).loss.backward()
    rows = octoscale.load_run(tmp_path / "run").scales
    assert set(rows["role"]) == {"weight", "input", "grad_output"}
    assert set(rows["scaling"]) == {"even"}
    for amax, name, bias in rows.select("amax", "format", "scale_bias").iter_rows():
        assert bias % 2 == 0
        assert Amax().scale_bias(amax, FORMATS[name]) - bias in (0, 1)
    assert (rows["scale_bias"] - rows["scale_bias"][0]).n_unique() > 1
    assert "scale_bias" in octoscale.load_run(tmp_path / "run").figures


class Counted:
    """Step 1 of a backend: what plain torch does, and how often it is asked."""

    def __init__(self):
        self.asked = []

    def __getattr__(self, name):
        self.asked.append(name)
        return getattr(portable, name)


def test_a_backend_is_a_row_of_the_table(monkeypatch, run):
    """Step 2: it is chosen, with its reason; the casts are its own, and those of plain torch."""
    backend = Counted()
    row = table.Row(name="counted", why_not=lambda _: None, make=lambda _: (backend, "it counts"))
    monkeypatch.setattr(table, "TABLE", (row, *table.TABLE))
    monkeypatch.setattr(table, "_choices", {})
    assert table.choose("cpu").name == "counted"
    x = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    q = octoscale.quantize(x, "e4m3fn", Amax())
    assert {"observe", "encode"} <= {*backend.asked}
    assert torch.equal(
        q.codes.view(torch.uint8), (x * 2.0 ** int(q.scale_bias)).to(torch.float8_e4m3fn).view(torch.uint8)
    )
    octoscale.matmul(q, q)
    assert "matmul" in backend.asked
    assert "it counts" in run("info")[1]


def largest(rows):
    """Step 1 of a figure: the numbers."""
    return rows.group_by("layer").agg(pl.col("amax").max()).sort("layer")


@styled
def largest_figure(rows, *, style=REPORT):
    """Step 2: the drawing."""
    figure = get_style(style).figure(2.0)
    axes = figure.subplots()
    numbers = largest(rows)
    axes.plot(numbers["layer"], numbers["amax"])
    return figure


def test_a_figure_is_a_row(monkeypatch, tmp_path, run):
    """Step 3: runs name it, draw it in each style, and commands write it."""

    def make(contents, _):
        if not contents.scales.is_empty():
            yield "largest", partial(largest_figure, contents.scales)

    monkeypatch.setitem(FIGURES, "largest", RunFigure(shows="Largest values", needs="no casts", make=make))
    monkeypatch.setitem(SHOWS, "largest", "Largest values")
    write_run(tmp_path / "mine", small_run(), SUMMARY)
    loaded = octoscale.load_run(tmp_path / "mine")
    assert "largest" in loaded.figures
    for style in ("report", "paper", "slides"):
        (line,) = loaded.figure("largest", style=style).axes[0].lines
        assert list(line.get_ydata()) == [20.0, 20.0]
    code, _, _ = run("figures", tmp_path / "mine", "--only", "largest", "--style", "paper")
    assert code == 0
    assert (tmp_path / "mine" / "figures" / "paper" / "largest.pdf").read_bytes().startswith(b"%PDF")
    write_run(tmp_path / "empty")
    with pytest.raises(octoscale.UserError, match="no casts"):
        octoscale.load_run(tmp_path / "empty").figure("largest")


def test_the_page_names_what_is_there():
    """Each file, and each name of the code, that the page's steps name."""
    root = Path(__file__).resolve().parents[2]
    page = root / "docs" / "design.md"
    if not page.exists():
        pytest.skip("the page is for a clone")
    text = page.read_text("utf-8")
    for name, where in (
        ("FORMATS", "src/octoscale/numerics/formats.py"),
        ("FORMAT_SETS", "src/octoscale/numerics/formats.py"),
        ("_FORMS", "src/octoscale/numerics/recipe.py"),
        ("TABLE", "src/octoscale/kernels/table.py"),
        ("BACKENDS", "tests/support/implementations.py"),
        ("FIGURES", "src/octoscale/report/figures/of_run.py"),
        ("_FILES", "src/octoscale/runs/files.py"),
        ("_wrong", "src/octoscale/report/diagnosis/scales.py"),
    ):
        assert f"`{name}`" in text
        assert name in (root / where).read_text("utf-8")
