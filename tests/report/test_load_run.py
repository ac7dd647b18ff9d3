"""A run as notebooks want it. Oracles: the rows and lines that were written by hand."""

import json
import math

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from written_runs import DOWN, SUMMARY, frame, row, small_run, write_run

import octoscale
from octoscale.report.run import Run, metrics_table
from octoscale.runs.folder import RunFolder
from octoscale.system.whole_file import write_json

LINES = [
    {"phase": "train", "step": 1, "loss": 2.5, "skipped": True},
    {"phase": "train", "step": 2, "loss": None, "grad_norm": 3},
    {"phase": "train", "step": 2, "eval_loss": 2.0},
]


@pytest.fixture
def whole(tmp_path):
    run = write_run(tmp_path / "run", small_run(), SUMMARY)
    for line in LINES:
        run.append_metrics(line)
    return run


def test_frames_and_results_are_those_of_the_files(whole):
    run = octoscale.load_run(str(whole.path))
    assert_frame_equal(run.scales, frame(*small_run()))
    assert run.summary == SUMMARY
    assert run.header == whole.read_json(whole.header)
    expected = {
        "phase": ["train"] * 3,
        "step": [1, 2, 2],
        "loss": [2.5, None, None],
        "skipped": [True, None, None],
        "grad_norm": [None, 3.0, None],
        "eval_loss": [None, None, 2.0],
    }
    assert_frame_equal(run.metrics, pl.DataFrame(expected))
    assert run.missing == ()
    assert run.figures == (*("perplexity", "scale_bias", "exponents-amax", "exponents-cscale_2", "clipping", "loss"),)


def test_a_run_does_not_change(whole):
    run = octoscale.load_run(whole.path)
    with pytest.raises(AttributeError):
        run.scales = None


def test_it_says_what_it_is(whole):
    text = repr(octoscale.load_run(whole.path))
    assert text.splitlines() == [
        f"{whole.path}: 30 rows of scales, 3 measurements",
        "figures: perplexity, scale_bias, exponents-amax, exponents-cscale_2, clipping, loss",
    ]


def test_figures_are_drawn_by_name_and_nothing_is_written(whole):
    run = octoscale.load_run(whole.path)
    figure = run.figure("exponents", style="paper", module=DOWN.format(1))
    assert figure.note.startswith(f"{DOWN.format(1)}, scaling amax")
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert run.figure("exponents-cscale_2").note.startswith(f"{DOWN.format(0)}, scaling cscale:2")
    assert not whole.figures.exists()


def test_what_cannot_be_drawn_is_an_error_with_its_reason(whole):
    run = octoscale.load_run(whole.path)
    with pytest.raises(ValueError, match=r"no figure 'losses': one of perplexity, .*exponents-amax"):
        run.figure("losses")
    with pytest.raises(ValueError, match=r"has nothing for bias_map: .* --roles weight,input"):
        run.figure("bias_map")
    with pytest.raises(ValueError, match="unknown style 'poster'"):
        run.figure("loss", style="poster")
    with pytest.raises(ValueError, match="module 'x' is not in this run"):
        run.figure("exponents", module="x")
    with pytest.raises(ValueError, match=r"module='.*' is for the figure exponents, not loss: leave it out"):
        run.figure("loss", module=DOWN.format(1))


@pytest.mark.parametrize("value", [math.inf, 10**400, "x", [1], {"a": 1}, True])
def test_a_column_holds_numbers_and_null_for_the_rest(value):
    table = metrics_table([{"loss": 1.0}, {"loss": value}, {"other": value}])
    assert table["loss"].to_list() == [1.0, None, None]
    assert table.height == 3


def test_halves_of_characters_stand_as_their_escapes():
    assert metrics_table([{"\ud800": "\udfff"}]).rows(named=True) == [{"\\ud800": "\\udfff"}]


def test_no_measurement_is_an_empty_table():
    assert metrics_table([]).is_empty()


# Runs that are not whole


def test_an_empty_run_is_loaded_and_says_so(tmp_path):
    run = octoscale.load_run(write_run(tmp_path / "run").path)
    assert isinstance(run, Run)
    assert run.figures == ()
    assert [line.split(":")[0] for line in run.missing] == ["there are no results", "there are no scales"]
    assert "missing: there are no scales" in repr(run)


def test_a_run_that_goes_on_shows_what_is_there(tmp_path):
    """Scales and losses, a line that is being written, no summary."""
    made = write_run(tmp_path / "run", [row(phase="train", step=step) for step in range(3)])
    made.append_metrics(LINES[0])
    with made.metrics.open("a") as file:
        file.write('{"phase": "tra')
    run = octoscale.load_run(made.path)
    assert run.figures == ("scale_bias", "clipping", "scale_bias_steps", "loss")
    assert run.missing == ("there are no results: the run goes on, was stopped before its end, or was only recorded",)
    assert run.metrics.height == 1


def test_a_run_of_an_older_version_is_whole(whole):
    """Its header has no mark, its parts no checksum."""
    header = whole.read_json(whole.header)
    header.pop("octoscale_run")
    write_json(whole.header, header | {"versions": {"octoscale": "0.0.1"}})
    frame(row(step=7)).write_parquet(whole.scales / "part-000001.parquet")
    run = octoscale.load_run(whole.path)
    assert run.missing == ()
    assert run.scales["step"].max() == 7


@pytest.mark.parametrize("name", ["scales/part-000000.parquet", "summary.json", "metrics.jsonl", "run.json"])
def test_a_broken_part_is_named_and_the_rest_is_there(name, whole):
    path = whole.path / name
    path.write_bytes(path.read_bytes()[:20] if name != "metrics.jsonl" else b"x\n")
    run = octoscale.load_run(whole.path)
    assert name in run.missing[0]
    assert run.missing[0].startswith("damaged, and left out: ")
    assert run.figures
    assert name in repr(run)


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"is not a run: it holds no run\.json"):
            octoscale.load_run(path)
    write_run(tmp_path / "lost").header.write_text("{")
    with pytest.raises(ValueError, match=r"nothing of .* can be read"):
        octoscale.load_run(tmp_path / "lost")


# octoscale figures


def test_figures_are_written_beside_the_run_and_what_is_missing_is_said(whole, run):
    code, out, err = run("figures", whole.path, "--format", "svg", "--only", "scale_bias", "--only", "loss")
    assert (code, err) == (0, "")
    files = sorted(path.relative_to(whole.figures).as_posix() for path in whole.figures.rglob("*.*"))
    assert files == ["paper/loss.svg", "paper/scale_bias.svg"]
    assert f"2 figures: {whole.figures / 'paper'}" in out
    code, out, _ = run("figures", whole.path, "--style", "slides", "--format", "svg", "--json")
    printed = json.loads(out)
    assert printed["figures"]["loss"] == [str(whole.figures / "slides" / "loss.svg")]
    parities = {"parity", "parity_layers", "parity_lengths"}
    assert set(printed["needs"]) == {"bias_map", "scale_bias_steps", "advice"} | parities
    assert printed["captions"]["loss"].startswith("The loss over the steps of training; lines: training")
    RunFolder.create(whole.path, {}, overwrite=True)  # all of it is ours


@pytest.mark.parametrize(
    ("style", "formats"), [("report", "png svg"), ("paper", "pdf png svg"), ("slides", "pdf png svg")]
)
def test_a_style_has_formats_of_its_own(style, formats, whole, run, tmp_path):
    code, _, err = run("figures", whole.path, "--style", style, "--only", "loss", "--out", tmp_path / "here")
    assert (code, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [f"loss.{end}" for end in formats.split()]


def test_a_folder_of_ones_own_keeps_its_files(whole, run, tmp_path):
    words = ("figures", whole.path, "--format", "svg", "--only", "loss", "--out", tmp_path / "thesis")
    assert run(*words)[0] == 0
    (tmp_path / "thesis" / "loss.svg").write_text("mine")
    code, _, err = run(*words)
    assert (code, "loss.svg is there already: choose another folder, or --overwrite" in err) == (2, True)
    assert (tmp_path / "thesis" / "loss.svg").read_text() == "mine"
    assert run(*words, "--overwrite")[0] == 0
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["loss.svg"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--style", "poster"), "unknown style 'poster': one of report, paper, slides"),
        (("--format", "pdf,gif"), "unknown format 'gif': one of pdf, svg, png"),
        (("--format", ""), "unknown format ''"),
        (("--only", "losses"), "unknown figure 'losses': one of perplexity, "),
        (("--only", "bias_map"), "has nothing for bias_map: no pairs of constants"),
        (("--only", "loss", "--module", DOWN.format(0)), "--module is for the figure exponents"),
        (("--module", "x"), "module 'x' is not in this run"),
        (("--overwrite",), "--overwrite is for --out"),
    ],
)
def test_what_cannot_be_met_is_one_line(words, error, whole, run):
    code, out, err = run("figures", whole.path, *words)
    assert (code, out) == (2, "")
    assert err.startswith("octoscale: error: ")
    assert error in err
    assert not whole.figures.exists()


def test_figures_of_a_broken_run_draw_the_rest(whole, run):
    whole.summary.write_text("{")
    code, out, err = run("figures", whole.path, "--format", "svg")
    assert code == 0
    assert "no perplexity: " in out
    assert f"octoscale: damaged, and left out: {whole.summary} is damaged" in err
    assert (whole.figures / "paper" / "scale_bias.svg").exists()


def test_figures_of_an_empty_run_say_what_is_missing(tmp_path, run):
    made = write_run(tmp_path / "run")
    code, out, err = run("figures", made.path)
    assert (code, out) == (2, "")
    assert err.startswith(f"octoscale: error: {made.path} has nothing to draw: there are no results: ")
    assert not made.figures.exists()


def test_an_advice_is_drawn_and_a_broken_one_is_named(tmp_path, run):
    """What of an advice may be damaged: tests/report/test_advice_contents.py."""
    cast = {"saturated": 0, "flushed": 0.1, "amax": 2.0, "sqnr_db": 30.0, "scale_bias": [1, 2]}
    layer = {"module": "x.0", "layer": 0, "kind": "ffn_out", "estimate": {"both": 0.1}, "weight": cast, "input": cast}
    advice = {"recipe": "amax", "model": "m", "keep": ["x.0"], "tokens": 9, "layers": [layer]}
    made = write_run(tmp_path / "run")
    path = made.path / "advice.json"
    path.write_text(json.dumps(advice))
    assert octoscale.load_run(made.path).figures == ("advice",)
    assert octoscale.load_run(made.path).missing == ()
    assert run("figures", made.path, "--format", "svg")[0] == 0
    made.append_metrics(LINES[0])
    for change in ({"layers": 3}, {"layers": [layer | {"kind": "x"}]}, {"tokens": "x"}, {"keep": 1}, {"model": None}):
        path.write_text(json.dumps(advice | change))
        loaded = octoscale.load_run(made.path)
        assert f"{path}: {next(iter(change))}" in loaded.missing[0]
        assert ("advice" in loaded.figures) == isinstance(change.get("layers"), list)
