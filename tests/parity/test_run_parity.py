"""A parity as a run. Oracles: a validation of the same scalings, its own parts, a run that was never stopped."""

import json

import pytest
import torch
from checkpoints import contents, save_tiny_llama

from octoscale.models import loading
from octoscale.models.texts import read_text, token_windows
from octoscale.numerics.recipe import Recipe
from octoscale.parity import run as module
from octoscale.parity.differences import EXPONENTS, Differences, compare
from octoscale.parity.lengths import FAMILIES, curves_of
from octoscale.parity.products import forward_products
from octoscale.parity.run import run_parity
from octoscale.parity.settings import Parity
from octoscale.parity.ways import ways_of
from octoscale.validation.run import run_validation

pytest.importorskip("octoscale.kernels.native", reason="the C++ core was not built")
pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    save_tiny_llama(folder / "llama")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    return folder


def words(inputs, **changes):
    given = {"tokens": 64, "window": 32, "rows": 6, "longest": 128, "gradients": True}
    return Parity(model=str(inputs / "llama"), text=str(inputs / "text.txt"), **given | changes)


def parity(folder):
    return json.loads((folder / "parity.json").read_text())


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_parity(words(inputs), folder)
    return folder


def test_perplexities_are_those_of_a_validation(inputs, whole, tmp_path):
    run_validation(words(inputs).validation(), tmp_path / "validation", overwrite=False)
    found, expected = (json.loads((path / "summary.json").read_text()) for path in (whole, tmp_path / "validation"))
    assert found["perplexity"] == expected["perplexity"]
    assert [*found["perplexity"]] == ["bf16", "amax", "amax:accumulate=hopper"]
    assert found["perplexity"]["amax"] != found["perplexity"]["amax:accumulate=hopper"]


def test_kinds_and_layers_are_made_of_the_differences_of_their_products(inputs, whole):
    loaded = loading.load(str(inputs / "llama"))
    windows = token_windows(read_text(str(inputs / "text.txt")), loaded.encode, window=32, num_tokens=64)
    by_kind, by_layer = {}, {}

    def take(product):
        found = compare(product, ways_of(["hopper"]), torch.bfloat16)["hopper"]
        for table, key in ((by_kind, product.layer.kind), (by_layer, product.layer.module)):
            table.setdefault(key, Differences()).add(found)

    forward_products(loaded.model, Recipe.amax(), windows, take, rows=6)
    content = parity(whole)
    rows = {(row["kind"], row["sums"]): row for row in content["kinds"] if row["result"] == "output"}
    assert {kind for kind, _ in rows} == by_kind.keys() == {"attn_qkv", "attn_out", "ffn_in", "ffn_out"}
    for kind, found in by_kind.items():
        assert rows[kind, "hopper"] == {"result": "output", "kind": kind, "sums": "hopper", **found.to_json()} | {
            "of_casts": rows[kind, "hopper"]["of_casts"]
        }
        shares = [
            row["of_casts"]["hopper"] for row in content["layers"] if (row["kind"], row["result"]) == (kind, "output")
        ]
        assert rows[kind, "hopper"]["of_casts"]["worst"] == max(shares)
        assert min(shares) <= rows[kind, "hopper"]["of_casts"]["median"] <= max(shares)
        assert len(shares) == {"attn_qkv": 6, "attn_out": 2, "ffn_in": 4, "ffn_out": 2}[kind]
    layers = {row["module"]: row for row in content["layers"] if row["result"] == "output"}
    assert {name: row["of_casts"]["hopper"] for name, row in layers.items()} == {
        name: found.of_casts for name, found in by_layer.items()
    }
    assert rows["attn_qkv", "hopper"]["outputs"] == 6 * (32 + 16 + 16) * 2
    assert content["exponents"] == list(EXPONENTS)


def test_gradients_are_there_if_they_are_asked_for(inputs, whole, tmp_path):
    assert {row["result"] for row in parity(whole)["layers"]} == {"output", "grad_input", "grad_weight"}
    run_parity(words(inputs, gradients=False), tmp_path / "run")
    assert {row["result"] for row in parity(tmp_path / "run")["layers"]} == {"output"}


def test_curves_are_those_of_made_operands(inputs, whole):
    expected = [curves_of(name, ways_of(["hopper"]), "e4m3fn", [64, 128], seed=0) for name in FAMILIES]
    assert parity(whole)["lengths"] == expected


def test_the_answer_says_what_the_numbers_do(whole):
    content = parity(whole)
    rows = [row for row in content["kinds"] if (row["result"], row["sums"]) == ("output", "hopper")]
    share = 100 * sum(row["changed"] for row in rows) / sum(row["outputs"] for row in rows)
    worst = max(
        (row for row in content["layers"] if row["result"] == "output"), key=lambda row: row["of_casts"]["hopper"]
    )
    text = content["answer"][0]
    assert text.startswith(f"hopper: {share:.3g} % of the outputs are another bf16 number than with float32's sums")
    assert text.endswith(f"{100 * worst['of_casts']['hopper']:.3g} % in the worst, {worst['module']}.")
    assert len(content["answer"]) == 2  # no sum is as long as DeepSeek's


def test_what_was_stopped_goes_on_to_the_same_bytes(inputs, whole, tmp_path, monkeypatch):
    left = iter(range(2))

    def stopped(*args, **options):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return curves_of(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "curves_of", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_parity(words(inputs), tmp_path / "run")
    assert not (tmp_path / "run" / "parity.json").exists()
    monkeypatch.setattr(module, "forward_products", None)  # it is kept
    run_parity(words(inputs), tmp_path / "run", go_on=True)
    found, expected = contents(tmp_path / "run"), contents(whole)
    assert found["parity.json"] == expected["parity.json"]
    assert found.keys() == expected.keys()


def test_another_tensor_core_is_added_to_what_is_there(inputs, whole, tmp_path, monkeypatch):
    run_parity(words(inputs), tmp_path / "run")
    asked = []
    score_one = module.KeptScores._measure
    monkeypatch.setattr(module.KeptScores, "_measure", lambda self, name: asked.append(name) or score_one(self, name))
    run_parity(words(inputs, accumulate="hopper,blackwell"), tmp_path / "run", go_on=True)
    assert asked == ["amax:accumulate=blackwell"]
    before, now = parity(whole), parity(tmp_path / "run")
    assert {row["sums"] for row in now["kinds"]} == {"float32", "hopper", "hopper, promoted", "blackwell"}
    assert [row for row in now["kinds"] if row["sums"] != "blackwell"] == before["kinds"]


def test_progress_counts_windows_and_lengths(inputs, tmp_path):
    told = []
    run_parity(words(inputs), tmp_path / "run", progress=lambda *said: told.append(said))
    assert ("amax:accumulate=hopper", 2, 2) in told
    assert ("layers", 3, 3) in told  # two windows, and a backward pass
    assert ("uniform", 2, 2) in told
