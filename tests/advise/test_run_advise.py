"""Advice that goes on. Oracle: the files of the same advice that nothing stopped."""

import json

import pytest
import torch
from checkpoints import byte_tokenizer, contents, note
from models import tiny_llama
from stopping import stopped_after

from octoscale.advise import findings, keeping
from octoscale.advise.run import run_advise
from octoscale.advise.settings import Advice
from octoscale.runs.folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

#: Of which a list is found, of which none is, and of which nothing need be kept.
BOUNDS = {"a list": "3.2%", "no list": "1e-7%", "nothing": "1000%"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model that FP8 breaks a little, and a text."""
    folder = tmp_path_factory.mktemp("inputs")
    model = tiny_llama(vocab_size=256, bos_token_id=None, eos_token_id=None, max_position_embeddings=64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter *= 8
        model.lm_head.weight *= 30
    model.save_pretrained(folder / "llama")
    byte_tokenizer().save_pretrained(folder / "llama")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    return folder


def advice(inputs, **changes):
    words = {"tokens": 64, "window": 16, "bound": BOUNDS["a list"], "keep_at_most": 3, **changes}
    return Advice(model=str(inputs / "llama"), text=str(inputs / "text.txt"), **words)


def results(folder):
    """All that an advice is made of."""
    return {name: (folder / name).read_bytes() for name in ("advice.json", "recipe.toml")}


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_advise(advice(inputs), folder)
    return folder


@pytest.fixture
def measured(monkeypatch):
    """What is measured, not read from a cell: the names of the functions, one each time."""
    calls = []
    for module, name in ((keeping, "cost_of"), (keeping, "look"), (findings, "estimate_costs")):
        function = getattr(module, name)

        def count(*words, _function=function, _name=name):
            calls.append(_name)
            return _function(*words)

        monkeypatch.setattr(module, name, count)
    return calls


def test_an_advice_that_is_killed_after_each_pass_ends_as_if_it_had_not_been(inputs, whole, measured, tmp_path):
    """One more pass each time; none is made twice, but for looking at the model as it is."""
    passes = 0
    while True:
        passes += 1
        try:
            run_advise(advice(inputs), tmp_path / "run", go_on=True, progress=stopped_after(passes))
        except KeyboardInterrupt:
            assert not (tmp_path / "run" / "advice.json").exists()
            assert not (tmp_path / "run" / "recipe.toml").exists()
        else:
            break
    assert results(tmp_path / "run") == results(whole)
    content = json.loads(results(whole)["advice.json"])
    assert content["keep"]
    assert len(content["keep"]) < 3
    assert passes - 1 == content["num_passes"] + 1  # and the estimate
    assert measured.count("estimate_costs") == 1
    assert measured.count("cost_of") == content["num_passes"] - 2


@pytest.mark.parametrize("number", [1, 2, 3, 4, 10, 20])
def test_an_advice_that_was_killed_once_goes_on(number, inputs, whole, measured, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_advise(advice(inputs), tmp_path / "run", progress=stopped_after(number))
    before = measured.count("cost_of")
    run_advise(advice(inputs), tmp_path / "run", go_on=True)
    assert results(tmp_path / "run") == results(whole)
    assert (before, measured.count("cost_of")) == (
        max(0, number - 3),
        json.loads(results(whole)["advice.json"])["num_passes"] - 2,
    )


def test_one_that_is_done_measures_nothing_again(inputs, whole, measured):
    before = results(whole)
    run_advise(advice(inputs), whole, go_on=True)
    assert results(whole) == before
    assert measured == []


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("keep_at_most", [1, 4])
def test_with_another_bound_it_goes_on_to_the_advice_of_that_bound(bound, keep_at_most, inputs, tmp_path):
    """More layers to keep need more passes; a bound needs few, if any."""
    changed = advice(inputs, bound=BOUNDS[bound], keep_at_most=keep_at_most)
    run_advise(advice(inputs, keep_at_most=2), tmp_path / "a")
    run_advise(changed, tmp_path / "a", go_on=True)
    run_advise(changed, tmp_path / "b")
    assert results(tmp_path / "a") == results(tmp_path / "b")
    kept = json.loads(results(tmp_path / "a")["advice.json"])["keep"]
    assert {"nothing": kept == [], "no list": kept is None, "a list": bool(kept) or keep_at_most == 1}[bound]
    assert RunFolder(tmp_path / "a").read_json(tmp_path / "a" / "run.json")["plan"]["keep_at_most"] == keep_at_most


def test_while_it_goes_on_there_is_no_older_advice(inputs, tmp_path):
    run_advise(advice(inputs), tmp_path / "run")
    for name in ("advice.md", "report.html", "figures/advice.png", "figures/paper/advice.pdf"):
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "run" / name).touch()
    with pytest.raises(KeyboardInterrupt):
        run_advise(advice(inputs, bound="2%"), tmp_path / "run", go_on=True, progress=stopped_after(1))
    left = {name for name in contents(tmp_path / "run") if not name.startswith("cells/")}
    assert left == {"run.json"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 48}, "tokens 64, not 48: go on with the same, or in another folder"),
        ({"scaling": "cscale:1"}, "scaling amax, not cscale:1: go on"),
        ({"skip": ("down_proj",)}, r"skip \[\], not \['down_proj'\]: go on"),
        ({"formats": "fnuz"}, "formats ocp, not fnuz: go on"),
        ({"verify_text": "pydoc"}, "verify_text None, not pydoc: go on"),
        ({"dtype": "bf16"}, "dtype fp32, not bf16: go on"),
    ],
)
def test_other_words_are_refused_before_a_model_is_read(change, message, inputs, whole, monkeypatch):
    before = contents(whole)
    monkeypatch.setattr("octoscale.models.loading.load", None)
    with pytest.raises(ValueError, match=message):
        run_advise(advice(inputs, **change), whole, go_on=True)
    assert contents(whole) == before


@pytest.mark.parametrize("go_on", [False, True])
@pytest.mark.parametrize(
    ("left", "message"),
    [
        ("notes.txt", "holds files that are not a run: choose another folder"),
        ("run.json summary.json", "already holds a run|holds a run without results to go on from"),
        ("run.json checkpoints/checkpoint-2/x", "already holds a run|holds a run without results to go on from"),
        ("run.json cells/x.json", "already holds a run|holds results without identity.json: nobody knows of what"),
        ("run.json cells/identity.json", "already holds a run|cells/identity.json is damaged"),
    ],
)
def test_a_folder_of_something_else_is_refused_before_a_model_is_read(
    go_on, left, message, inputs, tmp_path, monkeypatch
):
    for name in left.split():
        note(tmp_path / "run", name, "{}" if name == "run.json" else "x")
    before = contents(tmp_path / "run")
    monkeypatch.setattr("octoscale.models.loading.load", None)
    with pytest.raises((ValueError, FileExistsError), match=message):
        run_advise(advice(inputs), tmp_path / "run", go_on=go_on)
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("left", ["nothing", "a header", "an emptied run"])
def test_going_on_with_nothing_begins(left, inputs, whole, tmp_path):
    if left != "nothing":
        RunFolder.create(tmp_path / "run", {} if left == "an emptied run" else {"plan": {}})
    run_advise(advice(inputs), tmp_path / "run", go_on=True)
    assert results(tmp_path / "run") == results(whole)


def test_other_weights_and_other_texts_behind_the_same_names_are_refused(inputs, tmp_path):
    for name in ("llama", "text"):
        source = tmp_path / name
        tiny_llama(vocab_size=256, max_position_embeddings=64).save_pretrained(source / "llama")
        byte_tokenizer().save_pretrained(source / "llama")
        (source / "text.txt").write_text("All that is gold does not glitter. " * 20)
        run_advise(advice(source, keep_at_most=1), source / "run")
        if name == "llama":
            tiny_llama(seed=1, vocab_size=256, max_position_embeddings=64).save_pretrained(source / "llama")
        else:
            (source / "text.txt").write_text("Not all those who wander are lost. " * 20)
        expected = {"llama": "made with fingerprint", "text": "made with text_crc32 .*, verify_crc32"}[name]
        with pytest.raises(ValueError, match=expected):
            run_advise(advice(source, keep_at_most=1), source / "run", go_on=True)


@pytest.mark.parametrize("name", ["as_it_is", "estimate", "amax_e4m3fn_-"])
def test_a_damaged_cell_is_named(name, inputs, tmp_path):
    run_advise(advice(inputs), tmp_path / "run")
    cell = next((tmp_path / "run" / "cells").glob(f"search_{name}*"))
    cell.write_text(cell.read_text().replace("0", "1"))
    with pytest.raises(ValueError, match=f"{cell.name} is damaged: delete it, and its result is made again"):
        run_advise(advice(inputs), tmp_path / "run", go_on=True)
    cell.unlink()
    run_advise(advice(inputs), tmp_path / "run", go_on=True)
