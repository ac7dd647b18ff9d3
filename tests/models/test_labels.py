"""Labeled texts from files and from the hub's own reader. Oracle: the rows that the test wrote."""

import json

import pytest

from octoscale.models import labels
from octoscale.models.hub import read_hub_text
from octoscale.models.labels import read_labeled

SENTENCES = 'sentence\tlabel\nit "is good\t1\nbad\t0\nvery bad\t0\nfine\t1\n'


@pytest.fixture
def sentences(tmp_path):
    path = tmp_path / "sentences.tsv"
    path.write_text(SENTENCES)
    return str(path)


def test_a_tsv_has_a_header_and_no_quoting(sentences):
    found = read_labeled(sentences)
    assert list(found.texts) == ['it "is good', "bad", "very bad", "fine"]
    assert list(found.labels) == [1, 0, 0, 1]
    assert found.classes == ("0", "1")


def test_json_lines_with_two_texts_and_words_as_labels(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [("a", "b", "neutral"), ("c", "d", "entailment")]
    path.write_text("\n".join(json.dumps({"premise": p, "hypothesis": h, "label": x}) for p, h, x in rows) + "\n\n")
    found = read_labeled(str(path))
    assert list(found.texts) == ["a\nb", "c\nd"]
    assert found.classes == ("entailment", "neutral")
    assert list(found.labels) == [1, 0]


def test_numbers_are_ordered_as_numbers(tmp_path):
    path = tmp_path / "stars.tsv"
    path.write_text("text\tlabel\n" + "".join(f"t\t{label}\n" for label in (10, 9, -1)))
    assert read_labeled(str(path)).classes == ("-1", "9", "10")


def test_a_limit_and_a_split(sentences):
    train, validation = read_labeled(sentences, limit=3).split(0.34)
    assert (list(train.labels), list(validation.labels)) == ([1, 0], [0])
    assert train.classes == validation.classes == ("0", "1")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "", "a.tsv holds no labeled example"),
        ("a.tsv", "sentence\tlabel\n", "a.tsv holds no labeled example"),
        ("a.tsv", "sentence\tlabel\nx\t1\ty\n", "line 2: 3 fields, and the header names 2"),
        ("a.tsv", "sentence\tgold\nx\t1\n", "line 2: needs a column label and one or two of text, not sentence, gold"),
        ("a.tsv", "sentence\tlabel\nx\t\n", "line 2: the label '' is neither text nor a whole number"),
        ("a.tsv", "sentence\tlabel\nx\t1\ny\t1\n", "have the label 1: a classifier needs two classes"),
        ("a.jsonl", '{"text": "x", "label": 0}\n{"text"', "line 2 is not JSON"),
        ("a.jsonl", '["x"]\n', "line 1: needs an object"),
        ("a.jsonl", '{"text": 3, "label": 0}\n', "line 1: text must be text"),
        ("a.jsonl", '{"text": "x", "label": 0.5}\n', "line 1: the label 0.5 is neither"),
        ("a.csv", "x", "unknown task .*a.csv': name one of sst2, mnli, qqp, or a file .tsv or .jsonl"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_labeled(str(tmp_path / name))


def test_a_label_outside_the_classes_is_named_with_its_line(sentences):
    with pytest.raises(ValueError, match=r"sentences.tsv line 2: the label '1' is none of the classes 0, 2"):
        read_labeled(sentences, classes=("0", "2"))


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError, match=r"no such task file: nowhere\.tsv"):
        read_labeled("nowhere.tsv")


def test_no_examples_at_all(sentences):
    with pytest.raises(ValueError, match="examples=0: must be at least 1"):
        read_labeled(sentences, limit=0)


# The hub's own reader, on local folders


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of data sets as on the hub: two configurations, their splits named in README.md."""
    pytest.importorskip("datasets")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "glue"
    (folder / "sst2").mkdir(parents=True)
    rows = {"train": [("good", 1), ("bad", 0)], "validation": [("fine", 1)]}
    for split, pairs in rows.items():
        lines = [json.dumps({"sentence": text, "label": label, "idx": 0}) for text, label in pairs]
        (folder / "sst2" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "plain").mkdir()
    (folder / "plain" / "train.jsonl").write_text(
        '{"text": "one", "n": 1}\n{"text": "", "n": 2}\n{"text": "two", "n": 3}\n'
    )
    files = "".join(f"  - split: {split}\n    path: sst2/{split}.jsonl\n" for split in rows)
    plain = "- config_name: plain\n  data_files:\n  - split: train\n    path: plain/train.jsonl\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: sst2\n  data_files:\n{files}{plain}---\n")
    return folder


@pytest.mark.filterwarnings("ignore")  # the package datasets warns of itself
def test_a_task_of_the_hub(repository, monkeypatch):
    monkeypatch.setattr(labels, "HUB_REPOSITORY", str(repository))
    train = read_labeled("sst2")
    assert (list(train.texts), list(train.labels), train.classes) == (["good", "bad"], [1, 0], ("0", "1"))
    assert list(read_labeled("sst2", classes=train.classes, validation=True).texts) == ["fine"]


@pytest.mark.filterwarnings("ignore")
def test_a_text_of_the_hub(repository):
    assert read_hub_text(f"hf:{repository}:plain") == "one\n\ntwo"
    assert read_hub_text(f"hf:{repository}:sst2:validation") == "fine"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf:", "a data set is hf:NAME"),
        ("hf:a:b:c:d", "a data set is hf:NAME"),
        ("hf:REPOSITORY:none", "cannot load the data set .*: ValueError"),
        ("hf:/no/such/folder", "cannot load the data set /no/such/folder: "),
    ],
)
def test_a_text_of_the_hub_that_cannot_be_had(repository, source, message):
    with pytest.raises(ValueError, match=message):
        read_hub_text(source.replace("REPOSITORY", str(repository)))
