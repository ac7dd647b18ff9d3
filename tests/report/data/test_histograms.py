"""What is asked of histograms. Oracle: histograms written by hand, and the rows that have them."""

import polars as pl
from written_runs import frame, histogram, row, small_run, write_run

from octoscale.report.contents import read_run
from octoscale.report.data.histograms import abridged, has_exponents, with_histograms
from octoscale.report.run import load_run

#: A histogram, how many zeros it holds, and whether it holds a value.
HISTOGRAMS = (
    (histogram({0: 5, -3: 2}, zeros=50), 50, True),
    (histogram({-126: 1}), 0, True),
    (histogram({127: 1}), 0, True),
    (histogram({}, zeros=9), 9, False),
    (histogram({}, nonfinite=9), 0, False),
    (None, None, False),
)
ROWS = frame(*(row(exponents=exponents) for exponents, _, _ in HISTOGRAMS))


def test_rows_say_of_their_histograms_what_is_asked():
    rows = abridged(ROWS)
    assert not has_exponents(rows)
    assert rows["zeros"].to_list() == [zeros for _, zeros, _ in HISTOGRAMS]
    assert rows["has_values"].to_list() == [has_values for _, _, has_values in HISTOGRAMS]
    assert rows["histogram"].is_null().to_list() == [exponents is None for exponents, _, _ in HISTOGRAMS]


def test_equal_histograms_have_equal_hashes_in_every_part():
    one, other = abridged(ROWS), abridged(ROWS.reverse()).reverse()
    assert one["histogram"].to_list() == other["histogram"].to_list()
    assert one["histogram"].n_unique() == len(HISTOGRAMS)


def test_a_second_abridging_changes_nothing():
    assert abridged(abridged(ROWS)).equals(abridged(ROWS))
    assert abridged(ROWS.clear()).schema == abridged(ROWS).schema


def test_the_same_rows_have_histograms_abridged_or_not():
    whole = with_histograms(ROWS)
    assert whole.height == 3
    assert abridged(whole).equals(with_histograms(abridged(ROWS)))


def test_a_run_is_read_without_histograms_and_a_module_with_them(tmp_path):
    run = write_run(tmp_path / "run", small_run(), {}).path
    rows, contents = load_run(run).scales, read_run(run)
    assert not has_exponents(contents.scales)
    assert contents.scales.equals(abridged(rows))
    for module in rows["module"].unique():
        of_module = rows.filter(pl.col("module") == module)
        assert contents.of_module(module).equals(of_module)
        assert read_run(run, whole=True).of_module(module).equals(of_module)
    assert rows["exponents"].null_count() < rows.height
