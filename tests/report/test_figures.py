"""The figures: numbers that reach the picture, and files. Oracles: tables worked by hand, numerics/reference.py."""

import math

import matplotlib
import pytest
from written_runs import DOWN, PERPLEXITY, SUMMARY, frame, histogram, row, small_run, write_run

from octoscale.numerics import reference
from octoscale.report import data, figures
from octoscale.system.whole_file import write_json


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A complete run, its figures drawn once."""
    run = write_run(tmp_path_factory.mktemp("figures") / "run", small_run(), SUMMARY)
    return run, figures.draw(run.path)


def svg(run, stem):
    return (run.figures / f"{stem}.svg").read_text()


# The numbers.


def test_scores_are_split_into_lines_and_points():
    lines, points = data.split_scores(PERPLEXITY | {"cscale": {"2": None, "-10": 9.0, "1": 18.1}})
    assert list(lines.items()) == [("bf16", 17.5), ("amax", 18.0), ("amax:margin=3", 18.2)]
    assert list(points.items()) == [(-10, 9.0), (1, 18.1), (2, None)]


def test_excess_is_in_per_cent_and_leaves_out_what_is_not_finite():
    assert data.excess({-1: 22.0, 0: 0.0, 1: None}, 20.0) == pytest.approx({-1: 10.0, 0: -100.0})
    assert data.excess({"amax": 22.0}, None) == {}


def test_the_basin_is_at_most_half_a_per_cent_above_amax():
    assert data.basin(PERPLEXITY) == [0]  # the limit is 18.09, which 18.09 / 18 misses in floating point
    assert data.basin(PERPLEXITY | {"amax": 18.01}) == [-1, 0, 1]


@pytest.mark.parametrize("missing", [{"amax": None}, {"cscale": {}}, {"amax": 1.0}])
def test_there_may_be_no_basin(missing):
    assert data.basin(PERPLEXITY | missing) == []
    assert data.basin({}) == []


def test_scale_bias_is_the_mode_over_steps_and_modules():
    qkv = {"kind": "attn_qkv", "layer": 3}
    rows = frame(
        *(row(**qkv, step=step, module="q", scale_bias=bias) for step, bias in enumerate([4, 6, 6])),
        *(row(**qkv, step=step, module="k", scale_bias=bias) for step, bias in enumerate([4, 4, 9])),
        *(row(step=step, scale_bias=bias) for step, bias in enumerate([5, -2, -2, 5])),
        row(role="weight", scale_bias=8),
    )
    assert data.scale_bias_by_layer(rows).rows() == [
        ("input", "attn_qkv", 3, 4, 4, 9),
        ("input", "ffn_out", 0, -2, -2, 5),  # of two modes the smaller
        ("weight", "ffn_out", 0, 8, 8, 8),
    ]


@pytest.mark.parametrize("odd", [{"amax": 0.0}, {"amax": math.inf}, {"amax": math.nan}, {"layer": None, "module": "m"}])
def test_a_tensor_without_a_scale_or_a_layer_has_no_say(odd):
    rows = frame(row(), row(**odd, scale_bias=0), row(**odd, scale_bias=0))
    assert data.scale_bias_by_layer(rows).rows() == [("input", "ffn_out", 0, 4, 4, 4)]


def test_shares_by_exponent_are_of_the_nonzero_finite_values():
    rows = frame(
        row(exponents=histogram({0: 5, -3: 2}, zeros=50, nonfinite=7)),
        row(exponents=None),
        row(exponents=histogram({0: 1, 127: 1, -126: 1})),
    )
    assert data.shares_by_exponent(rows) == {-126: 10.0, -3: 20.0, 0: 60.0, 127: 10.0}
    assert data.shares_by_exponent(frame(row(exponents=histogram({}, zeros=9)))) == {}
    assert data.shares_by_exponent(frame(row())) == {}


@pytest.mark.parametrize("scale_bias", [-3, 0, 11])
def test_reach_agrees_with_the_cast(fmt, scale_bias):
    held = data.reach(fmt, scale_bias)

    def codes(x):
        return reference.quantize([x], fmt, scale_bias)

    flushed, normal = 2.0**held.flushed, 2.0**held.normal
    assert codes(flushed)[1].flushed == 1
    assert codes(math.nextafter(flushed, 1.0))[1].flushed == 0
    mantissa_mask = (1 << fmt.mantissa_bits) - 1
    assert codes(normal)[0] == [mantissa_mask + 1]  # the first code with an exponent field
    largest = fmt.max * 2.0**-scale_bias
    assert math.log2(largest) == pytest.approx(held.saturated)
    assert codes(largest)[1].saturated == 0
    assert codes(math.nextafter(largest, math.inf))[1].saturated == 1


def test_clipped_shares_are_of_all_values_over_steps_and_modules():
    rows = frame(
        row(saturated=1, flushed=20),
        row(step=1, saturated=2, flushed=0, numel=300),
        row(layer=1, numel=0),
        row(scaling="cscale:1", role="weight", flushed=100),
        row(layer=None, module="head", saturated=100),
    )
    assert data.clipped_shares(rows).rows() == [
        ("amax", "input", "ffn_out", 0, 0.75, 5.0),
        ("cscale:1", "weight", "ffn_out", 0, 0.0, 100.0),
    ]


@pytest.mark.parametrize(
    ("shares", "limits"),
    [
        ([0.0, 0.02, 3.0], (0.01, 10.0)),
        ([100.0], (10.0, 100.0)),
        ([10.0], (10.0, 100.0)),
        ([1.0], (1.0, 10.0)),
        ([0.0], (1.0, 10.0)),
    ],
)
def test_shares_are_shown_in_whole_decades(shares, limits):
    assert data.decades(shares) == limits


def test_the_main_scaling_is_amax_or_the_first_that_adapts():
    assert data.main_scaling(["cscale:1", "amax:margin=3", "amax"]) == "amax"
    assert data.main_scaling(["cscale:1", "delayed:history=4", "amax:margin=3"]) == "delayed:history=4"
    assert data.main_scaling(["cscale:1", "cscale:-1,formats=fnuz"]) is None


@pytest.mark.parametrize(
    ("scalings", "shown"),
    [
        (["amax", "cscale:-8", "cscale:6", "cscale:-10"], ["amax", "cscale:6", "cscale:-10"]),
        (["cscale:3", "amax"], ["amax", "cscale:3"]),
        (["cscale:-1", "cscale:0"], ["cscale:0", "cscale:-1"]),
        (["amax:margin=3"], ["amax:margin=3"]),
        ([], []),
    ],
)
def test_clipping_shows_the_main_scaling_and_the_outermost_biases(scalings, shown):
    assert data.clipping_scalings(scalings) == shown


def test_the_default_module_is_the_ffn_out_that_flushes_most_under_amax():
    bins = histogram({0: 9})
    rows = [row(layer=layer, exponents=bins) for layer in range(5)]
    q_proj = row(kind="attn_qkv", module="q_proj", flushed=90, exponents=bins)
    assert data.default_module(frame(*rows, q_proj)) == DOWN.format(2)
    constant = row(layer=4, scaling="cscale:1", flushed=90, exponents=bins)
    rows[3] |= {"flushed": 5}
    rows[1] |= {"flushed": 6, "numel": 200}
    unseen = row(layer=0, flushed=50)  # no histogram
    assert data.default_module(frame(*rows, q_proj, constant, unseen)) == DOWN.format(3)
    assert data.default_module(frame(q_proj, unseen)) == "q_proj"
    assert data.default_module(frame(constant)) == DOWN.format(4)
    assert data.default_module(frame(unseen)) is None


def test_exponents_are_drawn_for_the_main_scaling_and_the_worst_constant_one():
    losses = {"amax": 1, "cscale:0": 0, "cscale:1": 20, "cscale:-2": 50, "cscale:2": 10}
    rows = frame(*(row(scaling=scaling, flushed=flushed) for scaling, flushed in losses.items()))
    assert data.exponent_scalings(rows, PERPLEXITY) == ["amax", "cscale:2"]  # null is worse than any number
    assert data.exponent_scalings(rows, {"cscale": {"0": 30.0, "1": 31.0}}) == ["amax", "cscale:1"]
    assert data.exponent_scalings(rows, {}) == ["amax", "cscale:-2"]  # no perplexity: the most is lost
    assert data.exponent_scalings(rows.filter(scaling="amax"), PERPLEXITY) == ["amax"]
    assert data.exponent_scalings(frame(), {}) == []


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
