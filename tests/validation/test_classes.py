"""Tasks of classifiers. Oracles: transformers on each text alone, the rows of the file."""

import json
import math

import pytest
import torch
from checkpoints import save_tiny_llama
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import octoscale
from octoscale.layers.state import NonFiniteError
from octoscale.system.errors import UserError
from octoscale.validation.classes import read_classes

ROWS = [("the fox jumps", "good"), ("over", "bad"), ("the lazy dog sleeps", "good"), ("", "bad"), ("so it goes", "bad")]


@pytest.fixture
def folder(tmp_path):
    """A classifier as a training saves it: two classes with names."""
    base = save_tiny_llama(tmp_path / "base")
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, dtype=torch.float32)
    model.config.id2label, model.config.label2id = {0: "bad", 1: "good"}, {"bad": 0, "good": 1}
    model.config.pad_token_id = 0
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def include(tmp_path):
    (tmp_path / "data").mkdir()
    lines = ["sentence\tlabel", *("\t".join(row) for row in ROWS)]
    (tmp_path / "data" / "sst2.tsv").write_text("\n".join(lines))
    return tmp_path / "data"


def ask(folder, names=("sst2",), **options):
    loaded = octoscale.load(str(folder), torch.float32)
    words = {"include": None, "limit": None, "batch_size": 3, **options}
    return list(read_classes(names, loaded, **words).ask(loaded.model))


def test_each_text_goes_to_the_class_that_transformers_says(folder, include):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (score,) = ask(folder, include=include)
    for (text, label), item in zip(ROWS, score.items, strict=True):
        if text:
            with torch.no_grad():
                logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
            assert item["prediction"] == int(logits.argmax())
        assert item["gold"] == ("bad", "good").index(label)
        assert item["acc"] == float(item["prediction"] == item["gold"])
    assert score.metrics == {"acc": sum(item["acc"] for item in score.items) / 5}
    assert score.values == tuple(item["acc"] for item in score.items)


def test_a_limit_and_a_file_of_its_own(folder, include):
    (score,) = ask(folder, [str(include / "sst2.tsv")], limit=2)
    assert (score.task, len(score.items)) == ("sst2", 2)


def test_fp8_changes_what_is_asked_of(folder, include):
    loaded = octoscale.load(str(folder), torch.float32)
    tasks = read_classes(["sst2"], loaded, include=include, limit=None, batch_size=2)
    heard = []
    octoscale.convert(loaded.model, octoscale.Recipe.amax())
    (score,) = tasks.ask(loaded.model, heard.append)
    assert heard == [2, 4, 5]
    assert tasks.size == 5
    assert len(score.items) == 5


def test_labels_that_are_no_classes_of_the_classifier_are_named(folder, include):
    (include / "mnli.jsonl").write_text(json.dumps({"premise": "a", "hypothesis": "b", "label": "neutral"}) + "\n")
    with pytest.raises(UserError, match="'neutral' is none of the classes bad, good"):
        ask(folder, ["mnli"], include=include)


def test_an_unknown_task_and_data_that_cannot_be_had_say_what_to_do(folder, include, monkeypatch):
    import octoscale.models.labels

    def unreachable(*_, **__):
        raise UserError("cannot load the data set nyu-mll/glue: ConnectionError: no hub")

    monkeypatch.setattr(octoscale.models.labels, "load_hub_data", unreachable)
    with pytest.raises(UserError, match=r"unknown task 'piqa' for a classifier: name one of sst2, mnli, qqp"):
        ask(folder, ["piqa"], include=include)
    with pytest.raises(UserError, match=r"no hub; without the hub, put the texts into a folder as qqp.tsv"):
        ask(folder, ["qqp"], include=include)
    with pytest.raises(FileNotFoundError, match=r"no such task file: nowhere\.tsv"):
        ask(folder, ["nowhere.tsv"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_no_answer(value, folder, include):
    loaded = octoscale.load(str(folder), torch.float32)
    tasks = read_classes(["sst2"], loaded, include=include, limit=None, batch_size=2)
    with torch.no_grad():
        loaded.model.score.weight[0] = value
    with pytest.raises(NonFiniteError, match="sst2, item 0: its logits hold infinity or NaN"):
        list(tasks.ask(loaded.model))


def test_validate_measures_a_classifier_and_refuses_what_it_cannot_be_asked(folder, include, tmp_path, run):
    code, out, err = run("validate", folder, "--tasks", "sst2", "--include", include, "--out", "run", "--json")
    assert code == 0, err
    assert set(json.loads(out)["tasks"]["sst2"]["scores"]) == {"bf16", "amax"}
    for options, message in [
        (["--text", "pydoc"], "does not predict the next token"),
        (["--num-fewshot", "2"], "is a classifier: leave it out"),
        (["--tasks", "paper-llama"], "ask it sst2, mnli or qqp"),
    ]:
        code, _, err = run("validate", folder, "--tasks", "sst2", "--include", include, *options)
        assert code == 2
        assert message in err.splitlines()[-1]
