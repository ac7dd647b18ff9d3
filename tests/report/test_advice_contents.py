"""What of a damaged advice is shown. Oracles: an advice that advise wrote, and what was damaged in it by hand."""

import copy
import itertools
import json
import random
import shutil

import pytest
from checkpoints import save_tiny_llama
from mutations import HOSTILE, tree_places

from octoscale.advise.run import run_advise
from octoscale.advise.settings import Advice
from octoscale.report import showing
from octoscale.report.advice import advice_lines, advice_tables
from octoscale.report.advice_contents import advice_of
from octoscale.report.contents import read_run
from octoscale.report.figures import of_run
from octoscale.report.figures.advice import FIELDS

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("advice")
    (place / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    words = {"text": str(place / "text.txt"), "tokens": 64, "window": 16, "bound": "1e-9%", "keep_at_most": 2}
    run_advise(Advice(model=str(save_tiny_llama(place / "llama")), **words), place / "run")
    return place / "run"


@pytest.fixture
def advice(folder):
    return json.loads((folder / "advice.json").read_text())


def read(content, tmp_path):
    damaged = []
    found = advice_of(copy.deepcopy(content), tmp_path / "advice.json", damaged)
    return found, damaged


def test_a_whole_advice_is_read_as_it_is(advice, folder, tmp_path):
    assert read(advice, tmp_path) == (advice, [])
    contents = read_run(folder)
    assert (contents.advice, contents.summary, contents.damaged) == (advice, {}, [])
    assert len(advice["rankings"]) == 4
    assert sum("alone" in layer for layer in advice["layers"]) == 4


def test_costs_that_are_not_finite_are_no_damage(advice, tmp_path):
    nothing = dict.fromkeys(("loss", "low", "high", "perplexity_excess"))
    advice["cost"]["verify"]["expected"] = nothing | {"is_clear": True}
    advice["layers"][0] |= {"alone": advice["cost"]["verify"], "bought": nothing | {"is_clear": True}}
    advice["scalings"]["cscale:99"] = advice["cost"]["verify"]
    huge = {"loss": 1e4, "low": 1e3, "high": 2e4, "perplexity_excess": None, "is_clear": True}
    advice["scalings"]["cscale:-99"] = {"expected": huge, "measured": huge}
    assert read(advice, tmp_path) == (advice, [])


#: Where damage is put, and what of the advice goes with it: a field, or one entry of it.
DAMAGES = [
    (("model",), 1, "model"),
    (("recipe",), None, "recipe"),
    (("tokens",), -1, "tokens"),
    (("num_passes",), "12", "num_passes"),
    (("verify_text",), 3, "verify_text"),
    (("answer",), "text", "answer"),
    (("answer", 0), None, "answer"),
    (("keep",), [1], "keep"),
    (("cost",), {}, "cost"),
    (("cost", "verify", "measured", "loss"), "x", "cost"),
    (("cost", "search", "expected", "high"), None, "cost"),
    (("cost", "search", "expected", "low"), float("nan"), "cost"),
    (("cost", "search", "expected", "is_clear"), 1, "cost"),
    (("cost_left",), 0, "cost_left"),
    (("layers",), {}, "layers"),
    (("rankings",), [], "rankings"),
    (("scalings",), "x", "scalings"),
]
ENTRIES = [
    (("layers", 3, "kind"), "x", "layers: 3"),
    (("layers", 3, "layer"), 1001, "layers: 3"),
    (("layers", 3, "layer"), -1, "layers: 3"),
    (("layers", 3, "layer"), True, "layers: 3"),
    (("layers", 3, "module"), [], "layers: 3"),
    (("layers", 3, "estimate"), [], "layers: 3"),
    (("layers", 3, "estimate", "both"), float("inf"), "layers: 3"),
    (("layers", 3, "input"), None, "layers: 3"),
    (("layers", 3, "input", "sqnr_db"), "x", "layers: 3"),
    (("layers", 3, "weight", "scale_bias"), [1], "layers: 3"),
    (("layers", 3, "weight", "scale_bias"), [1, 10**6], "layers: 3"),
    (("layers", 3, "weight", "flushed"), None, "layers: 3"),
    (("layers", 3, "alone"), {}, "layers: 3"),
    (("layers", 3), "x", "layers: 3"),
    (("rankings", "lowest SQNR", "keep"), None, "rankings: lowest SQNR"),
    (("rankings", "lowest SQNR", "measured"), 1, "rankings: lowest SQNR"),
    (("scalings", "amax:margin=1", "expected"), [], "scalings: amax:margin=1"),
]


def put(content, place, value):
    *way, last = place
    for key in way:
        content = content[key]
    content[last] = value


def remove(content, place):
    *way, last = place
    for key in way:
        content = content[key]
    del content[last]


@pytest.mark.parametrize(("place", "value", "named"), DAMAGES)
def test_a_field_that_is_damaged_is_named_and_goes_with_what_needs_it(place, value, named, advice, tmp_path):
    put(advice, place, value)
    found, (line,) = read(advice, tmp_path)
    assert f"advice.json: {named} is " in line
    assert found == {name: kept for name, kept in advice.items() if name != named}
    assert len(advice_tables(found)) + len(advice_lines(found)) + (found.keys() >= FIELDS) >= 3


@pytest.mark.parametrize(("place", "value", "named"), ENTRIES)
def test_an_entry_that_is_damaged_is_named_and_goes_alone(place, value, named, advice, tmp_path):
    put(advice, place, value)
    found, (line,) = read(advice, tmp_path)
    assert f"advice.json: {named} is " in line
    field = named.partition(": ")[0]
    assert len(found[field]) == len(advice[field]) - 1
    assert all(found[name] == advice[name] for name in advice if name != field)
    assert len(advice_tables(found)) == 3


def test_whatever_stands_there_the_rest_is_shown(advice, tmp_path):
    """Each place with a value that nobody means, or with none: tables and lines are made, or left out."""
    draw = random.Random(0)
    small = advice | {"layers": advice["layers"][-3:], "steps": []}
    for place, kept in itertools.product(tree_places(small), (True, False)):
        content = copy.deepcopy(small)
        if kept:
            put(content, place, draw.choice(HOSTILE))
        else:
            remove(content, place)
        found, _ = read(content, tmp_path)
        assert all(isinstance(cell, str) for table in advice_tables(found) for row in table.rows for cell in row)
        assert all(isinstance(line, str) for line in advice_lines(found))


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_file_that_is_no_advice_is_named(data, folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "advice.json").write_bytes(data)
    showing.show(tmp_path / "run", as_json=False)
    out, err = capsys.readouterr()
    assert "no results yet" not in out
    assert "backend: " in out
    assert "octoscale: damaged, and left out: " in err
    assert "advice.json is damaged" in err


def test_the_figure_stands_any_estimates(advice, folder, tmp_path):
    """From the smallest double to more than a perplexity can say."""
    contents = read_run(folder)
    for number, value in enumerate([5e-324, 1e-300, 1e-9, 0.0, -1.0, 1.0, 700.0, 1e300]):
        contents.advice["layers"][number]["estimate"]["both"] = value
    drawing = of_run.draw_all(contents)
    assert drawing.failures == {}
    assert [path.name for path in drawing.paths] == ["advice.png"]
