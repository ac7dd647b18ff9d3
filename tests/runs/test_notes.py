"""Notes beside the rows: once each, and whole. Oracle: what a model was made to do."""

import json
from types import SimpleNamespace

import pytest
import torch
from models import tiny_gpt2, tiny_llama, tokens

import octoscale
from octoscale import Recipe
from octoscale.layers import state
from octoscale.runs.folder import RunFolder
from octoscale.runs.notes import Notes


def notes_of(folder, what):
    lines = (folder / "notes.jsonl").read_text().splitlines()
    return [note for note in map(json.loads, lines) if note["note"] == what]


@pytest.fixture
def notes(tmp_path):
    return Notes(RunFolder.create(tmp_path / "run", {}), phase="train", scaling="amax")


def test_a_loss_scale_is_noted_when_it_changes(notes, tmp_path):
    for step, value in enumerate([512.0, 512.0, 256.0, float("nan"), float("inf"), 256.0, 512.0]):
        notes.loss_scale(step, torch.tensor(value))
    notes.flush()
    found = [(note["step"], note["value"]) for note in notes_of(tmp_path / "run", "loss_scale")]
    assert found == [(0, 512.0), (2, 256.0), (6, 512.0)]


def test_a_stale_weight_is_noted_once_a_cast(notes, tmp_path):
    for step, changed in enumerate([False, True, True]):
        notes.reused_weight("a", step, torch.tensor(changed))
    notes.fresh_weight("a")
    notes.reused_weight("a", 3, torch.tensor(True))
    notes.flush()
    notes.flush()
    assert [note["step"] for note in notes_of(tmp_path / "run", "stale_weight")] == [1, 3]


def test_the_layers_of_a_run_with_what_stayed_out(tmp_path):
    model = tiny_llama()
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    octoscale.convert(model, Recipe.cscale(3, skip=["layers.1.*.q_proj"]))
    with octoscale.record(model, tmp_path / "run"):
        model(input_ids=tokens())
    (note,) = notes_of(tmp_path / "run", "modules")
    assert len(note["fp8"]) == 13
    assert note["frozen"] == ["model.layers.0.mlp.up_proj"]
    assert note["kept"] == {"model.layers.1.self_attn.q_proj": "skip pattern 'layers.1.*.q_proj'"}
    assert note["operands"] == {
        "weight": "e4m3fn cscale:3",
        "input": "e4m3fn cscale:3",
        "grad_output": "e5m2 cscale:3",
    }


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_what_backward_begins_with(make, tmp_path):
    model = make().train()
    octoscale.convert(model, Recipe.amax())
    with octoscale.record(model, tmp_path / "run"):
        for scale in (1.0, 64.0):
            (model(input_ids=tokens(), labels=tokens()).loss * scale).backward()
    assert [(note["step"], note["value"]) for note in notes_of(tmp_path / "run", "loss_scale")] == [(0, 1.0), (1, 64.0)]


@pytest.mark.parametrize(("output", "noted"), [("loss", 1), ("scores", 0), ("sum", 1)])
def test_what_counts_as_a_loss(output, noted, tmp_path):
    """Oracle: the shapes. A batch of one has one score, which is no loss."""

    class Scorer(torch.nn.Sequential):
        def forward(self, x):
            scores = super().forward(x)
            of = {"scores": scores, "sum": scores.sum(), "loss": SimpleNamespace(loss=scores.sum(0))}
            return of[output]

    model = Scorer(torch.nn.Linear(16, 8), torch.nn.Linear(8, 1))
    octoscale.convert(model, Recipe.amax())
    with octoscale.record(model, tmp_path / "run"):
        made = model(torch.ones(1, 16))
        getattr(made, "loss", made).sum().backward()
    assert len(notes_of(tmp_path / "run", "loss_scale")) == noted


@pytest.mark.parametrize("write", ["all", "one value", "NaN", "announced", "forgotten", "none"])
def test_a_write_that_torch_does_not_count_is_seen_where_the_cast_is_used_again(write, tmp_path):
    model = tiny_llama()
    octoscale.convert(model, Recipe.amax())
    weight = model.model.layers[0].mlp.up_proj.weight
    with octoscale.record(model, tmp_path / "run"), torch.no_grad():
        for step in range(3):
            if step == 1:
                {
                    "all": lambda: weight.data.mul_(2),
                    "one value": lambda: weight.data[3, 5].fill_(7.0),
                    "NaN": lambda: weight.data[3, 5].fill_(float("nan")),
                    "announced": lambda: weight.mul_(2),
                    "forgotten": lambda: (weight.data.mul_(2), octoscale.forget_casts(model)),
                    "none": lambda: None,
                }[write]()
            model(input_ids=tokens())
    found = [(note["module"], note["step"]) for note in notes_of(tmp_path / "run", "stale_weight")]
    assert found == [("model.layers.0.mlp.up_proj", 1)] * (write in ("all", "one value", "NaN"))


def test_a_write_to_all_of_a_large_weight_is_seen_from_some_of_its_values(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(300, 200), torch.nn.Linear(200, 10))
    octoscale.convert(model, Recipe.amax())
    with octoscale.record(model, tmp_path / "run"), torch.no_grad():
        model(torch.randn(4, 300))
        model[0].weight.data.add_(1e-6)
        model(torch.randn(4, 300))
    assert [note["step"] for note in notes_of(tmp_path / "run", "stale_weight")] == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bits_are_compared(dtype, tmp_path):
    """A NaN that stays is no write; a zero that becomes -0, and a NaN of other bits, are some."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)).to(dtype)
    weight = model[0].weight
    with torch.no_grad():
        weight[0, 0], weight[1, 1] = float("nan"), 0.0
    octoscale.convert(model, Recipe.amax())
    with octoscale.record(model, tmp_path / "run"):
        for step in range(5):
            if step == 3:
                weight.data[1, 1] = -0.0
            model(torch.ones(2, 8, dtype=dtype))
    assert [note["step"] for note in notes_of(tmp_path / "run", "stale_weight")] == [3]


def test_a_weight_is_compared_once_a_step(tmp_path, monkeypatch):
    """Oracle: how often its values are read: at the cast, and once in each of three steps of four micro-batches."""
    read = []
    some = state._some_of
    monkeypatch.setattr(state, "_some_of", lambda weight: read.append(1) or some(weight))
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    octoscale.convert(model, Recipe.amax())
    with octoscale.record(model, tmp_path / "run") as recorder:
        for step in range(3):
            for part in range(4):
                recorder.step = step
                if (step, part) == (1, 2):
                    model[0].weight.data.mul_(2)
                model(torch.ones(2, 8))
    assert len(read) == 1 * (1 + 3)
    assert [note["step"] for note in notes_of(tmp_path / "run", "stale_weight")] == [2]


@pytest.mark.parametrize("shape", [(1, 8192), (8192, 1), (3, 2000), (2000, 31), (100, 70), (32, 4097)])
@pytest.mark.parametrize("layout", ["rows", "columns", "with gaps"])
def test_some_values_of_a_weight_are_of_all_of_it(shape, layout):
    """Also of one with few rows or columns, as a head for one score has. Oracle: each value is its own place."""
    place = torch.arange(float(shape[0] * shape[1])).view(shape)
    weight = place if layout == "rows" else place.t().contiguous().t()
    if layout == "with gaps":
        weight = torch.cat([place, -place], dim=1)[:, : shape[1]]
    some = state._some_of(weight).flatten()
    assert len(set(some.tolist())) == len(some) >= 32
    rows, columns = some // shape[1], some % shape[1]
    assert rows.unique().numel() >= min(32, shape[0])
    assert columns.unique().numel() >= min(32, shape[1])
    assert rows.max() >= 0.9 * (shape[0] - 1)


def test_a_weight_that_is_frozen_is_noted_once(tmp_path):
    """Where gradients are taken; one that was frozen before the record began is known."""
    model = tiny_llama()
    octoscale.convert(model, Recipe.amax())
    up, gate = model.model.layers[0].mlp.up_proj.weight, model.model.layers[0].mlp.gate_proj.weight
    gate.requires_grad_(False)
    with octoscale.record(model, tmp_path / "run"):
        for step in range(5):
            up.requires_grad_(step < 2)
            with torch.set_grad_enabled(step != 2):
                model(input_ids=tokens())
    found = [(note["module"], note["step"]) for note in notes_of(tmp_path / "run", "frozen_weight")]
    assert found == [("model.layers.0.mlp.up_proj", 3)]
