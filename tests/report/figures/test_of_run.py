"""The figures: files, and the words in them. Oracle: runs worked out by hand."""

import math

import matplotlib
import pytest
from written_runs import DOWN, SUMMARY, histogram, row, small_run, write_run

from octoscale.report.figures import of_run as figures
from octoscale.system.whole_file import write_json


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A complete run, its figures drawn once."""
    run = write_run(tmp_path_factory.mktemp("figures") / "run", small_run(), SUMMARY)
    return run, figures.draw(run.path)


def svg(run, stem):
    return (run.figures / f"{stem}.svg").read_text()


# The files.


def test_every_figure_is_there_in_both_formats(drawn):
    run, paths = drawn
    stems = ["perplexity", "scale_bias", "exponents-amax", "exponents-cscale_2", "clipping"]
    assert paths == [run.figures / f"{stem}.png" for stem in stems]
    assert {path.name for path in run.figures.iterdir()} == {f"{s}.{end}" for s in stems for end in ("png", "svg")}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert all("</svg>" in svg(run, stem) for stem in stems)


@pytest.mark.skipif(
    matplotlib.__version_info__ < (3, 11), reason="matplotlib's layout differs in its last bits from time to time"
)
def test_the_same_run_draws_the_same_bytes_whatever_the_users_settings(drawn):
    run, _ = drawn
    first = {path.name: path.read_bytes() for path in run.figures.iterdir()}
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path", "xtick.direction": "in"}):
        figures.draw(str(run.path))
        assert matplotlib.rcParams["font.size"] == 20
    assert {path.name: path.read_bytes() for path in run.figures.iterdir()} == first


@pytest.mark.parametrize("stem", ["perplexity", "scale_bias", "exponents-amax", "clipping"])
def test_model_and_text_stand_below_each_figure(drawn, stem):
    assert "tiny-llama, 4,096 tokens, windows of 512, ocp formats" in svg(drawn[0], stem)


def test_perplexity_names_its_lines_with_their_values(drawn):
    text = svg(drawn[0], "perplexity")
    labels = ("bf16: 17.50", "amax: 18.00", "amax:margin=3: 18.20", "cscale", "at most 0.5 % above amax")
    for label in (*labels, "cscale, not finite", "perplexity above bf16's, %"):
        assert f">{label}<" in text.replace("&#x27;", "'")


def test_kinds_and_roles_that_do_not_occur_are_left_out(tmp_path, drawn):
    run = write_run(tmp_path / "run", [row(), row(kind="attn_out", module="o_proj")])
    figures.draw(run.path)
    for stem in ("scale_bias", "clipping"):
        text = svg(run, stem)
        assert "attn out" in text
        assert "ff output" in text
        assert not [word for word in ("attn qkv", "ff intermediate", "other", "weights", "gradients") if word in text]
    text = svg(drawn[0], "scale_bias")
    assert [word for word in ("weights", "activations", "gradients", "attn qkv") if word not in text] == []


def test_exponents_say_what_is_lost_of_the_nonzero_values(tmp_path):
    bins = histogram({-12: 5, 0: 35}, zeros=60)
    rows = [row(step=step, scale_bias=bias, exponents=bins, flushed=5) for step, bias in enumerate([3, 4, 4])]
    run = write_run(tmp_path / "run", [*rows, row(step=3, scale_bias=9, flushed=90)])  # the last has no histogram
    figures.draw(run.path)
    text = svg(run, "exponents-amax")
    assert "activations: e4m3fn, scale_bias 4 (mode)" in text
    assert ">12 %<" in text  # 15 of 120
    assert f"{DOWN.format(0)}, scaling amax" in text


def test_a_chosen_module_is_drawn(tmp_path):
    bins = histogram({0: 9})
    run = write_run(tmp_path / "run", [row(layer=layer, exponents=bins, flushed=layer) for layer in range(3)])
    figures.draw(run.path, module=DOWN.format(1))
    assert DOWN.format(1) in svg(run, "exponents-amax")


def test_cells_that_were_not_recorded_are_said_to_be(tmp_path, drawn):
    run = write_run(tmp_path / "run", [row(), row(layer=2)])
    figures.draw(run.path)
    assert "white: none, hatched: not recorded" in svg(run, "clipping")
    assert "hatched" not in svg(drawn[0], "clipping")


def test_an_interrupted_run_draws_what_it_can(tmp_path):
    only_rows = write_run(tmp_path / "rows", [row()])
    assert [path.stem for path in figures.draw(only_rows.path)] == ["scale_bias", "clipping"]
    only_constant = write_run(tmp_path / "constant", [row(scaling="cscale:1", layer=None, module="m")])
    write_json(only_constant.summary, {"perplexity": {"cscale": {"1": 9.0}}})
    assert [path.stem for path in figures.draw(only_constant.path)] == ["perplexity"]


@pytest.mark.parametrize(
    "perplexity",
    [
        {"bf16": None, "amax": 18.0, "cscale": {"0": 18.0}},
        {"bf16": 17.0, "amax": None, "cscale": {"-1": None, "0": None}},
        {"cscale": {"0": 1e300}},
    ],
)
def test_perplexities_may_be_null_or_missing(tmp_path, perplexity):
    run = write_run(tmp_path / "run", summary={"perplexity": perplexity})
    assert [path.stem for path in figures.draw(run.path)] == ["perplexity"]
    for name, value in perplexity.items():
        assert (f">{name}: not finite<" in svg(run, "perplexity")) is (value is None)


@pytest.mark.parametrize("value", [0.0, 2.0**-20, 3.4e38])
def test_tensors_at_the_edges_are_drawn(tmp_path, value):
    bins = histogram({math.frexp(value)[1] - 1: 100}) if value else histogram({}, zeros=100)
    edge = {"amax": value, "scale_bias": -119 if value > 1 else 28 if value else 0}
    run = write_run(tmp_path / "run", [row(**edge, exponents=bins, saturated=100, flushed=100 if value else 0)])
    stems = [path.stem for path in figures.draw(run.path)]
    assert stems == (["scale_bias", "exponents-amax", "clipping"] if value else ["clipping"])


# The errors.


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a run: it holds no run\.json"):
        figures.draw(tmp_path)


@pytest.mark.parametrize("summary", [None, {"perplexity": {"bf16": 9.0}}, {"perplexity": {"cscale": {"0": None}}}])
def test_nothing_to_draw_is_no_picture(tmp_path, summary):
    run = write_run(tmp_path / "run", summary=summary)
    assert figures.draw(run.path) == []
    assert not run.figures.exists()


def test_an_unknown_module_is_an_error_that_lists_near_names(tmp_path):
    run = write_run(tmp_path / "run", [row(module="embed", kind="other"), row()])
    with pytest.raises(ValueError, match=r"'layers\.0\.mlp\.down' is not in this run; near names: model\S+$"):
        figures.draw(run.path, module="layers.0.mlp.down")
    with pytest.raises(ValueError, match=r"'x' is not in this run; near names: embed, model\S+$"):
        figures.draw(run.path, module="x")
    with pytest.raises(ValueError, match=r"'x' is not in this run; it recorded none"):
        figures.draw(write_run(tmp_path / "empty", summary=SUMMARY).path, module="x")


def test_a_module_without_histograms_is_an_error(tmp_path):
    run = write_run(tmp_path / "run", [row()])
    with pytest.raises(ValueError, match=r"down_proj' has no histograms in this run: record with every=1"):
        figures.draw(run.path, module=DOWN.format(0))
    assert not run.figures.exists()


def test_few_biases_near_each_other_have_plain_numbers_beside_them(tmp_path, drawn):
    """Where the axis is shorter than a decade; else powers of ten."""
    near = {"bf16": 15.0, "amax": 15.5, "cscale": {"-1": 15.6, "0": 25.0}}
    run = write_run(tmp_path / "run", summary={"perplexity": near})
    figures.draw(run.path)
    assert ">20<" in svg(run, "perplexity")
    assert ">20<" not in svg(drawn[0], "perplexity")


# The map of pairs.


def bias_map(**changes):
    cells = [
        {"weight": weight, "input": input, "verdict": verdict, "worse": worse}
        for weight, input, verdict, worse in (
            (-1, 2, "passes", -0.3),
            (-1, 3, "undecided", 0.45),
            (4, 2, "fails", 1e9),
            (4, 3, "fails", None),
        )
    ]
    words = {"roles": ["weight", "input"], "what": "perplexity", "against": "amax", "cells": cells, "text": "a text"}
    return words | changes


def test_a_map_of_pairs_is_drawn(tmp_path):
    run = write_run(tmp_path / "run", summary=SUMMARY | {"bias_map": bias_map()})
    assert "bias_map" in [path.stem for path in figures.draw(run.path)]
    text = svg(run, "bias_map")
    labels = ("passes beyond noise", "undecided", "not finite", "scale_bias of weights", "scale_bias of activations")
    for label in (*labels, "perplexity above amax's, %", "tiny-llama, 4,096 tokens, windows of 512, ocp formats"):
        assert f">{label}<" in text.replace("&#x27;", "'")


def test_a_map_of_accuracies_says_so_and_roles_may_be_exchanged(tmp_path):
    finite = bias_map()["cells"][:3]
    words = bias_map(what="accuracy", against="bf16", roles=["input", "weight"], cells=finite)
    run = write_run(tmp_path / "run", summary={"bias_map": words})
    figures.draw(run.path)
    text = svg(run, "bias_map")
    assert ">accuracy below bf16's, points<" in text.replace("&#x27;", "'")
    assert ">not finite<" not in text
    assert text.index(">scale_bias of weights<") < text.index(">scale_bias of activations<")  # x comes first


def test_a_map_without_pairs_is_no_picture(tmp_path):
    run = write_run(tmp_path / "run", summary={"bias_map": {"roles": ["weight", "input"], "cells": [], "text": "none"}})
    assert figures.draw(run.path) == []
