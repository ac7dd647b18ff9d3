"""Tensors with several scales in the page. Oracle: the records that it was made of."""

import re

import pytest
from stepped_runs import PLAN, rows_of
from test_page_in_browser import browser, cell, exported, legend_of, open_page, pytestmark, under_the_pointer  # noqa: F401
from written_runs import frame

from octoscale.report.page.write import write_report
from octoscale.runs.folder import RunFolder
from octoscale.runs.parts import write_part

DOWN = "model.layers.0.mlp.down_proj"


def grouped_run(path, granularity="row", scaling="amax:row", **changes):
    """Eight steps, each tensor with four scales: scale_bias, which falls, and up to 5 above it at step 7."""
    run = RunFolder.create(path, {"plan": {**PLAN, "scaling": scaling}})
    rows = [
        {"granularity": granularity, "num_scales": 4, **each}
        | {"scale_bias_high": each["scale_bias"] + (5 if step == 7 else 3)}
        for step in range(8)
        for each in rows_of(step, scaling=scaling, **changes)
    ]
    write_part(run.scales, frame(*rows))
    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pages of a run of rows, and of it beside one of one scale a tensor: name -> address."""
    folder = tmp_path_factory.mktemp("bands")
    rows = grouped_run(folder / "rows").path
    whole = RunFolder.create(folder / "whole", {"plan": PLAN})
    write_part(whole.scales, frame(*(each for step in range(8) for each in rows_of(step))))
    made = {"rows": [rows], "both": [rows, whole.path]}
    return {name: write_report(of, folder / f"{name}.html").as_uri() for name, of in made.items()}


def test_the_map_tells_the_band_and_what_has_a_scale(files, open_page):  # noqa: F811
    page = open_page(files["rows"], "view=map&quantity=band&step=7")
    assert "band of scale_bias (highest less lowest" in page.locator("#of").inner_text()
    page.locator("canvas.map").hover(position=cell(page, 1, 1))
    told = page.locator("#tip").inner_text().splitlines()
    assert {"scale_bias: 7 to 12 over 4 rows", "band of scale_bias: 5"} <= set(told)  # 8 - 7 // 8 - 1
    assert not any("subnormal" in line or "SQNR" in line for line in told)  # which value had which scale is not known
    page.get_by_label("Step", exact=True).fill("0")
    page.locator("canvas.map").hover(position=cell(page, 0, 0))
    assert "scale_bias: 8 to 11 over 4 rows" in page.locator("#tip").inner_text().splitlines()


def test_quantities_of_one_scale_and_of_several_are_offered_where_they_are_known(files, open_page):  # noqa: F811
    page = open_page(files["both"], "view=map")
    offered = page.get_by_label("Quantity").locator("option")
    of_rows = offered.evaluate_all("all => all.map(each => each.value)")
    page.get_by_label("Run and scaling").select_option("whole: amax")
    of_whole = offered.evaluate_all("all => all.map(each => each.value)")
    assert set(of_rows) - set(of_whole) == {"band"}
    assert set(of_whole) - set(of_rows) == {"subnormal", "sqnr"}
    page.locator("canvas.map").hover(position=cell(page, 0, 0))
    assert "scale_bias: 8" in page.locator("#tip").inner_text().splitlines()


def test_a_tensor_shows_the_band_and_the_window_of_all_scales(files, open_page):  # noqa: F811
    page = open_page(files["rows"], f"view=tensor&module={DOWN}&role=input")
    assert "a scale for each row: 4 rows" in page.locator(".head").inner_text()
    ((told,), _) = legend_of(page, "scale_bias: lowest of all scales; band: up to the highest")
    assert told == ""
    values, _ = legend_of(page, "scale_bias: lowest")
    assert list(values.values()) == ["8 (8 to 13) at step 7"]
    assert page.get_by_role("button", name="after scaling").count() == 0
    assert "scale_bias 8 to 11 over 4 rows" in page.locator("figcaption", has_text="Exponents at").inner_text()
    fall = page.locator("figure.plot .holder canvas").first
    assert "scale_bias 8 to 11 over 4 rows" in under_the_pointer(page, fall, "exponent -3:")
    assert page.locator("figcaption", has_text="Shares").inner_text() == (
        "Shares of the values: flushed to zero, saturated"
    )


def test_one_scale_beside_several_is_told_as_one(files, open_page):  # noqa: F811
    page = open_page(files["both"], f"view=tensor&module={DOWN}&role=input&against=whole: amax")
    values, _ = legend_of(page, "scale_bias: lowest")
    assert list(values.values()) == ["8 (8 to 13) at step 7", "8 at step 7"]


def test_the_run_draws_all_scales_of_a_role(files, open_page):  # noqa: F811
    page = open_page(files["rows"], "view=run")
    values, _ = legend_of(page, "scale_bias by role: mean over tensors, of the lowest of their scales")
    assert values["weights"] == "7.5 (7 to 13) at step 7"


def test_the_table_and_its_file_say_granularity_how_many_and_the_highest(files, open_page):  # noqa: F811
    page = open_page(files["both"], "view=table&find=down")
    heads = re.sub(r"\s+", " ", page.locator("thead").inner_text())
    assert "granularity" in heads
    assert "scales, most" in heads
    rows = [row for row in exported(page) if row["module"] == DOWN and row["role"] == "input"]
    names = ("scaling", "granularity", "num_scales", "bias_low", "bias_high")
    assert {tuple(row[name] for name in names) for row in rows} == {
        ("rows: amax:row", "row", "4", "8", "13"),
        ("whole: amax", "tensor", "1", "8", "8"),
    }


@pytest.mark.parametrize("view", ["map", "tensor", "run", "table"])
def test_bands_fit_into_400_pixels(view, files, open_page):  # noqa: F811
    page = open_page(files["both"], f"view={view}", width=400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
