"""Fine-tuning of classifiers. Oracle: the loss and accuracy that transformers' own model gives on the same texts."""

import json
import math

import pytest
import torch
import transformers
from checkpoints import byte_tokenizer, save_tiny_llama

from octoscale.conversion.convert import preview
from octoscale.models import loading
from octoscale.models.labels import read_labeled
from octoscale.numerics.recipe import Recipe
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import read_scales
from octoscale.training.data import _accuracy, fill_up, labeled_data
from octoscale.training.run import run_training
from octoscale.training.settings import Training

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # Trainer's own

GOOD, BAD = ("good film", "what a good time", "good"), ("a bad film", "bad", "it is so bad")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    lines = [f"{text}\t{label}" for good, bad in zip(GOOD, BAD, strict=True) for text, label in ((good, 1), (bad, 0))]
    (folder / "train.tsv").write_text("sentence\tlabel\n" + "\n".join(lines * 4) + "\n")
    return {
        "model": str(save_tiny_llama(folder / "llama")),
        "task": str(folder / "train.tsv"),
        "eval_task": folder / "train.tsv",
        "window": 16,
        "steps": 30,
        "batch": 8,
        "learning_rate": 3e-3,
        "every": 0,
        "save_every": 0,
    }


@pytest.fixture
def small_gpt(monkeypatch):
    small = loading.Size(
        family="gpt", d_model=16, num_layers=1, num_heads=2, num_kv_heads=2, d_ffn=32, max_positions=64
    )
    monkeypatch.setitem(loading.SIZES, "gpt-111m", small)


def test_a_classifier_learns_in_fp8(words, tmp_path):
    run = run_training(Training(**words, scaling="amax"), tmp_path / "run")
    summary = run.read_json(run.summary)
    assert summary["validation_accuracy"]["after"] == 1.0
    assert summary["validation_accuracy"]["before"] < 0.9
    assert summary["examples"] == 30 * 8
    rows = read_scales(run.path)
    assert set(rows["role"]) == {"weight", "input", "grad_output"}
    assert "score" not in set(rows["module"])


def test_the_measured_accuracy_is_that_of_the_saved_model(words, tmp_path):
    """Oracle: transformers loads the trained classifier and answers each text alone, without any filling up."""
    from transformers import AutoModelForSequenceClassification

    run = run_training(Training(**{**words, "steps": 4}, scaling="fp32", dtype="fp32"), tmp_path / "run")
    model = AutoModelForSequenceClassification.from_pretrained(run.model)
    encode = loading.load(words["model"]).encode
    texts = read_labeled(words["task"])
    with torch.no_grad():
        answers = [int(model(torch.tensor([encode(text)[:16]])).logits.argmax()) for text in texts.texts]
    right = [answer == label for answer, label in zip(answers, texts.labels, strict=True)]
    measured = run.read_json(run.summary)["validation_accuracy"]["after"]
    assert measured == pytest.approx(sum(right) / len(right))
    assert model.config.num_labels == 2


def test_a_gpt_of_the_paper_becomes_a_classifier(words, small_gpt, tmp_path):
    assert loading.load("gpt-111m", num_labels=3).model.score.weight.shape == (3, 16)
    plan = Training(**{**words, "model": "gpt-111m", "steps": 2, "eval_task": None}, scaling="cscale:0")
    run = run_training(plan, tmp_path / "run")
    assert run.read_json(run.summary)["validation_accuracy"]["after"] >= 0
    assert json.loads((run.model / "config.json").read_text())["architectures"] == ["GPT2ForSequenceClassification"]


def test_the_head_stays_out_of_fp8(words):
    model = loading.load(words["model"], num_labels=3).model
    kept = [row.module for row in preview(model, Recipe.amax()).skipped]
    assert "score" in kept
    assert model.score.weight.shape[0] == 3


def test_the_seed_decides_the_head(words):
    first, same, other = (loading.load(words["model"], num_labels=2, seed=seed).model for seed in (0, 0, 1))
    assert torch.equal(first.score.weight, same.score.weight)
    assert not torch.equal(first.score.weight, other.score.weight)


def test_a_batch_is_filled_up_on_the_right():
    rows = [
        {"input_ids": torch.tensor(ids), "labels": torch.tensor(label)} for ids, label in (([5, 6, 7], 1), ([8], 0))
    ]
    batch = fill_up(rows, pad=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("label", [0, 1])
def test_logits_that_are_not_finite_have_no_accuracy(value, label):
    """Oracle: by hand; NaN is nobody's largest, and nothing is larger than infinity by a softmax."""
    logits = torch.tensor([[0.1, 0.2], [value, 0.0]]).numpy()
    answers = transformers.EvalPrediction(predictions=logits, label_ids=torch.tensor([1, label]).numpy())
    assert math.isnan(_accuracy(answers)["accuracy"])
    answers = transformers.EvalPrediction(predictions=logits[:1], label_ids=torch.tensor([label]).numpy())
    assert _accuracy(answers)["accuracy"] == float(label == 1)


def test_a_classifier_of_nan_says_so(words, tmp_path):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(words["model"], num_labels=2)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    model.save_pretrained(tmp_path / "nan")
    byte_tokenizer().save_pretrained(tmp_path / "nan")
    plan = Training(**{**words, "model": str(tmp_path / "nan"), "steps": 1, "learning_rate": 1e-30}, scaling="amax")
    with pytest.raises(FloatingPointError, match="holds infinity or NaN"):
        run_training(plan, tmp_path / "run")
    before = next(row for row in RunFolder(tmp_path / "run").read_metrics() if "eval_accuracy" in row)
    assert (before["eval_accuracy"], before["eval_loss"]) == (None, None)


def test_long_texts_are_cut_off(words):
    loaded = loading.load(words["model"], num_labels=2)
    texts = read_labeled(words["task"])
    data = labeled_data(Training(**{**words, "window": 5}), texts, texts, loaded)
    assert max(len(data.train[index]["input_ids"]) for index in range(len(data.train))) == 5


def test_a_label_outside_the_classes_makes_no_run(words, tmp_path):
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\nwhat\t7\n")
    with pytest.raises(ValueError, match=r"dev.tsv line 2: the label '7' is none of the classes 0, 1"):
        run_training(Training(**{**words, "eval_task": tmp_path / "dev.tsv"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_validation_examples_need_a_task():
    with pytest.raises(ValueError, match=r"dev.tsv holds labeled examples for validation: give --task"):
        Training(model="gpt-111m", eval_task="dev.tsv")
