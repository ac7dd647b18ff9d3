"""The page as a file. Oracles: what its parts may hold, read with the standard library's parser; sizes."""

import base64
import hashlib
import json
import random
import re
import shutil
from html.parser import HTMLParser

import pytest
from stepped_runs import PLAN, rows_of, stepped_run
from written_runs import SUMMARY, frame, small_run, write_run

import octoscale
from octoscale.report.contents import read_run
from octoscale.report.page import folder
from octoscale.report.page.findings import MOST_NAMED, with_diagnosis
from octoscale.report.page.folder import RunReader
from octoscale.report.page.write import as_block, write_report
from octoscale.runs.folder import RunFolder
from octoscale.runs.parts import list_parts, write_part
from octoscale.system.inside import LEADS_OUT

HOSTILE = [
    "</script><script>window.owned = 1</script>",
    "<img src=x onerror='window.owned = 1'>",
    "<!--<script>",
    "quote \" and ' and `${window.owned = 1}`",
    "line\nbreak\u2028and\u2029more",
    "\x1b[2J\u202eright to left\u200f",
    "\ufdd0&amp;" + "x" * 10_000,
]


class Parsed(HTMLParser):
    """Elements by name, with their attributes and texts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.is_open = [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])
        self.is_open = True

    def handle_endtag(self, tag):
        self.is_open = False

    def handle_data(self, data):
        if self.is_open:
            self.elements[-1][2] += data

    def all(self, tag):
        return [each for each in self.elements if each[0] == tag]


def page_of(*runs, out):
    return Parsed(write_report([run.path for run in runs], out).read_text(encoding="ascii"))


def data_in(page):
    (block,) = [text for _, attributes, text in page.all("script") if attributes.get("id") == "data"]
    return json.loads(block)


def test_the_policy_names_the_one_script_and_the_one_style_and_nothing_else(tmp_path):
    page = page_of(stepped_run(tmp_path / "run"), out=tmp_path / "page.html")
    (policy,) = [attributes["content"] for _, attributes, _ in page.all("meta") if "http-equiv" in attributes]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))

    def hashed(text):
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    (script,) = [text for _, attributes, text in page.all("script") if not attributes]
    ((_, _, style),) = page.all("style")
    assert rules["script-src"] == hashed(script)
    assert rules["style-src"] == hashed(style)
    assert (rules["default-src"], rules["connect-src"]) == ("'none'", "'none'")
    assert [each[1] for each in page.all("link")] == [{"rel": "icon", "href": "data:,"}]
    others = [each for each in page.elements if each[0] != "link"]
    assert not [each for each in others if each[1].keys() & {"src", "href", "onclick", "onload"}]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_ends_the_block_of_data_or_becomes_an_element(name, tmp_path):
    run = stepped_run(tmp_path / "run", 2, plan={**PLAN, "model": name}, module=name)
    page = page_of(run, out=tmp_path / "page.html")
    tags = sorted(tag for tag, _, _ in page.elements)
    plain = page_of(stepped_run(tmp_path / "plain", 2), out=tmp_path / "plain.html")
    assert tags == sorted(tag for tag, _, _ in plain.elements)
    (of_run,) = data_in(page)["runs"]
    assert of_run["scales"]["tensors"]["module"]["texts"] == [name]
    assert ["model", name] in of_run["facts"]


def test_a_block_escapes_what_could_end_it():
    text = as_block({"a": "</script><!-- & \u2028 \ud800 é"})
    assert not re.search("[<>&\u2028]", text)
    assert text.isascii()
    assert json.loads(text) == {"a": "</script><!-- & \u2028 \ud800 é"}


def test_tensors_and_findings_are_those_of_the_records(tmp_path):
    (run,) = data_in(page_of(stepped_run(tmp_path / "run"), out=tmp_path / "page.html"))["runs"]
    assert run["label"] == "run"
    assert run["scales"]["records"] == 24 * 12
    assert run["state"]["name"] == "finished"
    wrong = octoscale.diagnose(tmp_path / "run")
    told, (first, *_, last) = run["findings"][: len(wrong)], run["findings"][len(wrong) :]
    assert told
    assert [(each["module"], each["step"]) for each in told] == [(each.module, each.step) for each in wrong]
    assert all(each.evidence in said["words"] for each, said in zip(wrong, told, strict=True))
    assert (first["module"], first["role"]) == ("model.layers.0.mlp.down_proj", "input")
    assert first["words"] == "10 % of the values are flushed to zero."
    assert last["words"] == "4 modules in FP8 were recorded, over 24 steps."
    assert [line["name"] for line in run["series"]] == ["loss"]


TENSOR = {"rule": "flushes", "severity": "warning", "role": "input", "step": 2, "evidence": "9 %", "remedy": "-"}


@pytest.mark.parametrize("scaling", ["amax", "cscale:-8"])
def test_of_many_tensors_that_a_rule_names_the_first_are_shown_and_the_others_counted(scaling):
    diagnosed = [octoscale.Finding(module=f"m{i}", scaling=scaling, **TENSOR) for i in range(9)]
    counted = [{"module": module, "role": "input", "scaling": scaling, "words": module} for module in ("m8", "other")]
    *told, more, other = with_diagnosis(counted, diagnosed)
    assert [each["module"] for each in told] == [f"m{i}" for i in range(MOST_NAMED)]
    assert more["words"] == f"Under {scaling}, in {9 - MOST_NAMED} more tensors: small values become zero."
    assert other["words"] == "other"


def test_of_each_constant_of_a_sweep_one_tensor_is_shown():
    biases = ["cscale:-8", "cscale:weight=-7,input=3"]
    diagnosed = [octoscale.Finding(module=f"m{i}", scaling=scaling, **TENSOR) for scaling in biases for i in range(9)]
    shown = with_diagnosis([], diagnosed)
    assert [each["module"] for each in shown] == ["m0", None] * 2
    assert [each["words"] for each in shown[1::2]] == [
        f"Under {scaling}, in 8 more tensors: small values become zero." for scaling in biases
    ]


def test_a_run_that_is_long_is_not_diagnosed_at_once_and_says_which_command_is(tmp_path, monkeypatch):
    monkeypatch.setattr("octoscale.report.page.folder.MOST_DIAGNOSED", 10)
    (run,) = data_in(page_of(stepped_run(tmp_path / "run"), out=tmp_path / "page.html"))["runs"]
    assert run["findings"][0]["module"] == "model.layers.0.mlp.down_proj"
    assert "octoscale diagnose RUN" in run["findings"][-1]["words"]


def test_a_validation_has_its_scores_and_its_scalings(tmp_path):
    run = write_run(tmp_path / "run", small_run(), SUMMARY)
    run.append_metrics({"scaling": "amax", "window": 0, "loss": 2.5})
    (found,) = data_in(page_of(run, out=tmp_path / "page.html"))["runs"]
    assert [group["scaling"] for group in found["scales"]["groups"]] == ["amax", "cscale:-2", "cscale:2"]
    rows = {row[0]: row[1:] for row in found["tables"][0]["rows"]}
    assert rows["bf16"] == ["17.5000", "+0.00 %"]
    assert rows["cscale:2"] == ["not finite", ""]
    assert found["series"][0]["unit"] == "window"


def test_steps_that_loss_scaling_skipped_are_told(tmp_path):
    run = stepped_run(tmp_path / "run", 2)
    for step in range(3, 15):
        run.append_metrics({"phase": "train", "step": step, "skipped": True})
    (found,) = data_in(page_of(run, out=tmp_path / "page.html"))["runs"]
    assert found["words"] == ["The loss scale skipped 12 steps: 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and others."]


def test_numbers_that_no_run_writes_are_left_out_of_the_lines(tmp_path):
    run = stepped_run(tmp_path / "run", 2)
    rate = '{"phase": "train", "step": %s, "loss": 1.0, "learning_rate": %s}\n'
    run.metrics.write_text("".join(rate % each for each in ((1, "1" + "0" * 400), (2, "1e999"), (3, '"x"'), (4, 0.5))))
    (found,) = data_in(page_of(run, out=tmp_path / "page.html"))["runs"]
    assert [(line["name"], line["points"]) for line in found["series"]] == [("loss", 4), ("learning rate", 4)]


def test_runs_that_share_a_page_keep_their_names_apart(tmp_path):
    runs = [stepped_run(tmp_path / where / "run", 2) for where in ("a", "b")]
    page = data_in(page_of(*runs, out=tmp_path / "page.html"))
    assert [run["label"] for run in page["runs"]] == [str(run.path) for run in runs]


def test_a_rate_beyond_float32_is_no_warning(tmp_path):
    run = stepped_run(tmp_path / "run", 2)
    run.append_metrics({"phase": "train", "scaling": "amax", "step": 3, "loss": 1.0, "learning_rate": 1e300})
    (found,) = data_in(page_of(run, out=tmp_path / "page.html"))["runs"]  # warnings are errors here
    assert [(line["name"], line["points"]) for line in found["series"]] == [("loss", 3), ("learning rate", 1)]


@pytest.mark.parametrize("what", ["nothing", "only a header", "a damaged part", "no summary", "a cut line"])
def test_a_run_that_lacks_something_has_a_page_that_says_so(what, tmp_path):
    run = stepped_run(tmp_path / "run", 4 if what != "only a header" else 0, finished=what != "no summary")
    if what == "a damaged part":
        write_part(run.scales, frame(*rows_of(4)))
        part = list_parts(run.scales)[0]
        part.write_bytes(part.read_bytes()[:-100])
    if what == "a cut line":
        run.metrics.write_text(run.metrics.read_text() + '{"phase": "tr')
    (found,) = data_in(page_of(run, out=tmp_path / "page.html"))["runs"]
    assert len(found["damaged"]) == (what == "a damaged part")
    assert found["scales"]["records"] == {"only a header": 0, "a damaged part": 12}.get(what, 48)
    assert found["state"]["name"] == ("stopped" if what == "no summary" else "finished")


@pytest.mark.parametrize(
    "name",
    ["run.json", "metrics.jsonl", "notes.jsonl", "summary.json", "advice.json", "scales", "figures", "part", "svg"],
)
def test_what_a_link_takes_from_another_folder_is_left_out_and_named(name, tmp_path):
    """Every file that a page is made of, in a run of its own each time; the page else holds all of it."""
    secret = stepped_run(tmp_path / "secret", 7, plan={**PLAN, "model": "secret"})
    secret.append_note({"note": "stale_weight", "step": 1, "module": "secret", "scaling": "amax", "phase": "train"})
    secret.advice.write_text('{"answer": ["secret"]}')
    secret.figures.mkdir()
    (secret.figures / "secret.svg").write_text("secret")
    run = stepped_run(tmp_path / "real", 4)
    run.figures.mkdir()
    parts = {"part": run.scales / "part-000001.parquet", "svg": run.figures / "a.svg"}
    targets = {"part": list_parts(secret.scales)[0], "svg": secret.figures / "secret.svg"}
    path, target = parts.get(name, run.path / name), targets.get(name, secret.path / name)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    (tmp_path / "link").symlink_to(run.path)  # by which the run itself may be reached
    (found,) = data_in(page_of(RunFolder(tmp_path / "link"), out=tmp_path / "page.html"))["runs"]
    named = str(tmp_path / "link" / path.relative_to(run.path))
    assert [line for line in found["damaged"] if line.startswith(named)] == [f"{named} {LEADS_OUT}"]
    assert "secret" not in json.dumps({**found, "damaged": []})
    assert found["figures"] == []
    assert found["scales"]["records"] == (0 if name == "scales" else 48)
    contents = read_run(tmp_path / "link")
    assert "secret" not in repr((contents.header, contents.summary, contents.advice, contents.metrics, contents.notes))
    assert contents.scales.height == (0 if name == "scales" else 48)
    assert name in ("figures", "svg") or any(line.startswith(named) for line in contents.damaged)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a run"):
        write_report([tmp_path], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_reader_reads_what_is_new_once_and_all_again_if_a_run_was_rewritten(tmp_path):
    run = stepped_run(tmp_path / "run", 4)
    reader = RunReader.open(run.path)
    assert reader.refresh()
    assert not reader.refresh()
    write_part(run.scales, frame(*rows_of(4)))
    assert reader.refresh()
    assert (reader.last_step, reader.to_json("run", 1)["scales"]["records"]) == (4, 60)
    list_parts(run.scales)[0].unlink()  # as a training does that goes on from a checkpoint
    assert reader.refresh()
    assert reader.to_json("run", 1)["scales"]["records"] == 12


@pytest.mark.parametrize(
    ("news", "is_examined"),
    [
        ("a loss", False),
        ("a figure", False),
        ("a loss that is not finite", True),
        ("a step that was skipped", True),
        ("a note", True),
        ("a part", True),
        ("results", True),
    ],
)
def test_a_run_is_diagnosed_again_for_what_the_rules_look_at_only(news, is_examined, tmp_path, monkeypatch):
    asked = []
    real = folder.examine
    monkeypatch.setattr(folder, "examine", lambda path: asked.append(path) or real(path))
    run = stepped_run(tmp_path / "run", 4, finished=False)
    reader = RunReader.open(run.path)
    reader.refresh()
    reader.to_json("run", 1)
    more = {"phase": "train", "scaling": "amax", "step": 5}
    run.figures.mkdir()
    {
        "a loss": lambda: run.append_metrics(more | {"loss": 2.0}),
        "a figure": lambda: (run.figures / "a.svg").write_text("<svg/>"),
        "a loss that is not finite": lambda: run.append_metrics(more | {"loss": None}),
        "a step that was skipped": lambda: run.append_metrics(more | {"loss": 2.0, "skipped": True}),
        "a note": lambda: run.append_note(
            {"note": "stale_weight", "phase": "train", "scaling": "amax", "step": 1, "module": "m"}
        ),
        "a part": lambda: write_part(run.scales, frame(*rows_of(4))),
        "results": lambda: run.summary.write_text('{"steps": 4}'),
    }[news]()
    assert reader.refresh()
    shown = reader.to_json("run", 1)
    assert len(asked) == 1 + is_examined
    said = [each["words"] for each in shown["findings"]]
    assert all(any(each.evidence in words for words in said) for each in octoscale.diagnose(run.path))


@pytest.mark.parametrize("runs", [1, 2])
def test_a_page_that_deflates_badly_has_wider_bins_until_it_fits(runs, tmp_path, monkeypatch):
    """Noise, of 6 tensors over 512 steps: about 100 kB in bins of one step."""
    draw = random.Random(0)
    made = [RunFolder.create(tmp_path / str(number), {}) for number in range(runs)]
    for run in made:
        steps = [
            [each | {"amax": draw.random() * 2 ** draw.randrange(20), "flushed": draw.randrange(100)} for each in rows]
            for rows in (rows_of(step, layers=1) for step in range(512))
        ]
        write_part(run.scales, frame(*(each for rows in steps for each in rows)))
    whole = data_in(page_of(*made, out=tmp_path / "page.html"))
    most = len(json.dumps(whole["runs"])) // 3
    monkeypatch.setattr(folder, "MOST_OF_DATA", most)
    fewer = data_in(page_of(*made, out=tmp_path / "page.html"))
    assert len(json.dumps(fewer["runs"])) <= most
    for before, after in zip(whole["runs"], fewer["runs"], strict=True):
        assert before["scales"]["cells"]["width"] == 1
        assert after["scales"]["cells"]["width"] in (4, 8)  # no wider than that needs
        assert after["scales"]["records"] == before["scales"]["records"] == 512 * 6
    monkeypatch.setattr(folder, "MOST_OF_DATA", 1)
    least = data_in(page_of(*made, out=tmp_path / "page.html"))
    assert [len(run["scales"]["cells"]["bins"]) for run in least["runs"]] == [1] * runs


@pytest.mark.parametrize(
    ("header", "summary", "name"),
    [
        ("whole", "whole", "finished"),
        ("whole", "none", "stopped"),
        ("whole", "damaged", "ended"),
        ("damaged", "damaged", "ended"),
        ("damaged", "whole", "ended"),
        ("without a plan", "none", "finished"),  # octoscale.record has none
        ("a plan that is none", "none", "ended"),
    ],
)
def test_a_run_is_finished_only_if_something_tells_so(header, summary, name, tmp_path):
    run = stepped_run(tmp_path / "run", 2, finished=summary != "none")
    texts = {"damaged": "{", "without a plan": "{}", "a plan that is none": '{"plan": 3}'}
    if header in texts:
        run.header.write_text(texts[header])
    if summary in texts:
        run.summary.write_text(texts[summary])
    (found,) = data_in(page_of(run, out=tmp_path / "page.html"))["runs"]
    assert found["state"]["name"] == name
    assert ("nothing tells whether it is complete" in found["state"]["text"]) == (name == "ended")


def test_the_page_of_10_000_steps_fits_into_3_mb(tmp_path):
    """630 tensors would take a minute to write: 42 of them, with as many bins, fill a fifteenth of what is allowed."""
    run = RunFolder.create(tmp_path / "run", {})
    for start in range(0, 512, 32):
        rows = []
        for step in range(start, start + 32):
            rows += [each | {"step": 20 * step, "amax": 0.1 + step} for each in rows_of(step % 24, layers=7)]
        write_part(run.scales, frame(*rows))
    assert write_report([run.path], tmp_path / "page.html").stat().st_size < 200_000 + 3_000_000 / 15
