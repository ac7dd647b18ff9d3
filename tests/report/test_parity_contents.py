"""What of a damaged parity is shown. Oracles: a parity that was written by hand, and what was damaged in it."""

import copy
import json
import random

import pytest
from mutations import HOSTILE, mutate_tree, tree_places

from octoscale.report import showing
from octoscale.report.contents import read_run
from octoscale.report.figures.of_run import draw_all, makers
from octoscale.report.parity import parity_lines, parity_tables, pipes
from octoscale.report.parity_contents import parity_of
from octoscale.report.run import load_run
from octoscale.runs.folder import RunFolder
from octoscale.system.whole_file import write_json

KINDS = ("attn_qkv", "ffn_out")
WAYS = ("float32", "hopper", "hopper, promoted")


def kind(result, name, sums):
    counts = [0, 0, 0] if sums == "float32" else [900, 120, 3]
    shares = {"median": None, "worst": None} if sums == "float32" else {"median": 0.01, "worst": 0.5}
    differ = {"outputs": 1000, "changed": counts[1], "above": counts}
    return {"result": result, "kind": name, "sums": sums, **differ, "of_casts": shares}


def layer(number, name, result="output"):
    shares = {"float32": None, "hopper": 0.01 * (number + 1), "hopper, promoted": 0.005}
    return {"module": f"layers.{number}.{name}", "layer": number, "kind": name, "result": result, "of_casts": shares}


def family(name, says, lengths=(64, 128)):
    series = [{"sums": way, "error": [0.001] * len(lengths), "largest": [0.002] * len(lengths)} for way in WAYS]
    return {"operands": name, "says": says, "lengths": [*lengths], "casts": [0.04] * len(lengths), "series": series}


@pytest.fixture
def parity():
    return {
        "model": "tiny",
        "text": "pydoc",
        "tokens": 1024,
        "window": 512,
        "formats": "ocp",
        "backend": "native",
        "reason": "made up",
        "scaling": "amax",
        "dtype": "bf16",
        "rows": 64,
        "gradients": True,
        "seed": 0,
        "exponents": [-8, 0, 4],
        "kinds": [kind(result, name, sums) for result in ("output", "grad_input") for name in KINDS for sums in WAYS],
        "layers": [layer(number, name) for number in range(3) for name in KINDS] + [layer(0, "ffn_out", "grad_input")],
        "lengths": [family("normal", "N(0, 1)"), family("attention", "P V", (64, 256))],
        "answer": ["hopper: 12 % of the outputs."],
    }


def read(content, tmp_path):
    damaged = []
    return parity_of(copy.deepcopy(content), tmp_path / "parity.json", damaged), damaged


def run_with(content, path):
    run = RunFolder.create(path, {"plan": {}})
    write_json(run.parity, content)
    return run


def test_a_whole_parity_is_read_as_it_is(parity, tmp_path):
    assert read(parity, tmp_path) == (parity, [])
    run = run_with(parity, tmp_path / "run")
    contents = read_run(run.path)
    assert (contents.parity, contents.damaged, contents.has_results) == (parity, [], True)
    assert load_run(run.path).parity == parity
    assert read({}, tmp_path) == ({}, [])


def test_its_tables_hold_its_numbers(parity, tmp_path):
    kinds, lengths = parity_tables(parity)
    assert len(kinds.rows) == 2 * 2 * 2  # float32's own are left out
    assert kinds.rows[0] == ["attn_qkv", "hopper", "12", "12", "0.3", "1", "50"]
    assert kinds.columns[2:5] == ("changed, %", "over 1 ulp, %", "over 16 ulp, %")
    assert kinds.rows[4][0] == "attn_qkv, grad_input"
    assert lengths.columns == ("operands", "sums", "64", "128", "256")
    assert lengths.rows[0] == ["normal", "float32", "0.1", "0.1", "-"]
    assert lengths.rows[3] == ["normal", "the casts to FP8", "4", "4", "-"]
    assert lengths.rows[4][2:] == ["0.1", "-", "0.1"]
    answer, note = parity_lines(parity)
    assert answer == parity["answer"][0]
    assert note.startswith(
        "64 tokens of 1,024 of pydoc, in windows of 512, under amax; the model in bf16. Backend: native"
    )
    assert pipes(lengths).splitlines()[2] == "| normal | float32 | 0.1 | 0.1 | - |"


def test_a_parity_is_shown_with_its_figures(parity, tmp_path, capsys):
    run = run_with(parity, tmp_path / "run")
    showing.show(run.path, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    figures = [str(run.figures / f"{stem}.png") for stem in ("parity", "parity_layers", "parity_lengths")]
    assert shown == parity | {"run": str(run.path), "figures": figures}
    showing.show(run.path, as_json=False)
    out = capsys.readouterr().out
    assert "hopper: 12 % of the outputs." in out
    assert "3 figures" in out
    run.check_free(overwrite=True)  # all of it is ours


#: Where damage is put, and what of the parity goes with it.
DAMAGES = [
    (("model",), 1, "model"),
    (("rows",), -1, "rows"),
    (("answer", 0), None, "answer"),
    (("exponents",), [1, 0], "exponents"),
    (("exponents", 0), -65, "exponents"),
    (("kinds",), {}, "kinds"),
    (("layers",), "x", "layers"),
    (("lengths",), None, "lengths"),
]
ENTRIES = [
    (("kinds", 3, "kind"), "x", "kinds: 3"),
    (("kinds", 3, "result"), None, "kinds: 3"),
    (("kinds", 3, "changed"), 1001, "kinds: 3"),
    (("kinds", 3, "above"), [1, 2], "kinds: 3"),
    (("kinds", 3, "above", 0), 1001, "kinds: 3"),
    (("kinds", 3, "of_casts", "median"), -1.0, "kinds: 3"),
    (("kinds", 3, "of_casts", "worst"), "x", "kinds: 3"),
    (("kinds", 3, "sums"), 1, "kinds: 3"),
    (("layers", 2, "layer"), 1001, "layers: 2"),
    (("layers", 2, "module"), None, "layers: 2"),
    (("layers", 2, "of_casts", "hopper"), 1e308, "layers: 2"),
    (("layers", 2, "of_casts"), dict.fromkeys(map(str, range(17))), "layers: 2"),
    (("lengths", 1, "lengths", 0), 0, "lengths: 1"),
    (("lengths", 1, "casts"), [0.1], "lengths: 1"),
    (("lengths", 1, "series", 0, "error", 1), None, "lengths: 1"),
    (("lengths", 1, "series", 0, "sums"), None, "lengths: 1"),
    (("lengths", 1, "says"), 3, "lengths: 1"),
]


def put(content, place, value):
    *way, last = place
    for key in way:
        content = content[key]
    content[last] = value


@pytest.mark.parametrize(("place", "value", "named"), DAMAGES)
def test_a_field_that_is_damaged_is_named_and_left_out(place, value, named, parity, tmp_path):
    put(parity, place, value)
    found, (line, *more) = read(parity, tmp_path)
    assert f"parity.json: {named} is " in line
    assert all("kinds" in other for other in more)  # counts are of exponents
    kept = {name: value for name, value in parity.items() if name not in (named, *["kinds"] * bool(more))}
    assert {name: value for name, value in found.items() if name in kept} == kept
    assert named not in found


@pytest.mark.parametrize(("place", "value", "named"), ENTRIES)
def test_an_entry_that_is_damaged_is_named_and_goes_alone(place, value, named, parity, tmp_path):
    put(parity, place, value)
    found, (line,) = read(parity, tmp_path)
    assert f"parity.json: {named} is " in line
    field = named.partition(": ")[0]
    assert len(found[field]) == len(parity[field]) - 1
    assert all(found[name] == parity[name] for name in parity if name != field)
    assert len(parity_tables(found)) == 2


def test_whatever_stands_there_the_rest_is_shown(parity, tmp_path):
    """Each place with a value that nobody means: tables and lines are made, or left out."""
    draw = random.Random(0)
    for place in tree_places(parity):
        content = copy.deepcopy(parity)
        put(content, place, draw.choice(HOSTILE))
        found, _ = read(content, tmp_path)
        parity_tables(found)
        parity_lines(found)


@pytest.mark.slow
def test_whatever_stands_there_figures_are_drawn(parity, tmp_path):
    draw, run = random.Random(1), run_with(parity, tmp_path / "run")
    for _ in range(60):
        content = mutate_tree(copy.deepcopy(parity), draw)
        run.parity.write_text(json.dumps(content))
        contents = read_run(run.path)
        if makers(contents):
            assert draw_all(contents).failures == {}
