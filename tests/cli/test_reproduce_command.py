"""The command reproduce, and --pretrained. Oracle: one line that names what is wrong; the files' own JSON."""

import json

import pytest

from octoscale.models.sizes import HUB_IDS

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("table9", "cannot reproduce 'table9': there are table2, table3"),
        ("table5 --seeds 0;1", "cannot read the seeds '0;1'"),
        ("fig6 --tasks piqa", "--tasks is for table2, "),
        ("fig6 --limit 3", "--limit is for table2, "),
        ("table4 --steps 3", "--steps is for table2, "),
        ("table4 --seeds 0", "--seeds is for table2, "),
        ("table4 --bias=-1:1", "--bias is for table2, table3, fig5, not for table4"),
        ("table4 --text pydoc", "--text is for fig6, not for table4: leave it out"),
        ("table2 --train-bias 0:1", "--train-bias is for table6"),
        ("table2 --every-bias", "--every-bias is for table6"),
        (
            "table2 --tasks piqa --steps 3",
            "--steps is for fine-tuning, and nothing is fine-tuned for piqa: leave it out",
        ),
        ("table5 --preset paper --dtype bf16", "--preset paper means that of the paper, fp16: leave --dtype out"),
        ("table5 --preset paper --formats ocp", "--preset paper means those of the paper, fnuz: leave --formats out"),
        (
            "table5 --tasks sst2 --preset paper --model gpt-111m --model gpt-10m",
            "--preset paper has no row for gpt-10m",
        ),
        ("table4 --pretrained --model gpt-10m", "--pretrained is for gpt-111m, "),
        ("table4 --include nowhere", "no such folder: nowhere"),
        ("fig8 --model gpt-10m", "fig8 shows model 2 by size, and there are 1: give more --model"),
        ("fig6 --model nowhere", "unknown model 'nowhere'"),
        ("fig6 --text nowhere.txt --model gpt-10m", "no such text file: nowhere.txt"),
    ],
)
def test_what_cannot_be_met_is_one_line_and_nothing_is_written(run, tmp_path, words, message):
    code, out, err = run("reproduce", *words.split(), "--out", "run")
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("octoscale: error: ")]
    assert message in line
    assert not (tmp_path / "run").exists()


def test_nothing_asked_for_is_an_error(run):
    code, _, err = run("reproduce")
    assert code == 2
    assert "Missing argument 'WHAT'" in err


def test_json_is_what_the_files_hold_and_a_page_stands_beside_them(run, tmp_path):
    words = ("reproduce", "fig6", "--model", "gpt-10m", "--tokens", "32", "--window", "16", "--out", "run")
    code, out, err = run(*words, "--json")
    assert code == 0
    printed = json.loads(out)
    assert printed["fig6"] == json.loads((tmp_path / "run" / "fig6.json").read_text())
    assert printed["figures"] == ["run/fig6.png"]
    assert "read gpt-10m amax" in err
    assert {"README.md", "index.html", "fig6.svg"} <= {path.name for path in (tmp_path / "run").iterdir()}
    code, out, err = run(*words)
    assert (code, out) == (0, "tables, figures and their page: run/index.html\n")
    assert "read gpt-10m amax" not in err


@pytest.mark.parametrize("words", ["validate {}", "sweep {}", "train {}", "quantize {} OUT"])
def test_pretrained_means_the_real_checkpoint(run, monkeypatch, words):
    """Oracle: which config is asked for."""
    asked = []

    def config_of(spec):
        asked.append(spec)
        raise FileNotFoundError(spec)

    monkeypatch.setattr("octoscale.models.loading.config_of", config_of)
    monkeypatch.setattr("octoscale.models.loading.checkpoint_folder", config_of)
    monkeypatch.setattr("octoscale.models.export.checkpoint_folder", config_of, raising=False)
    code, _, _ = run(*words.format("gpt-590m").split(), "--pretrained")
    assert code != 0
    assert asked[0] == HUB_IDS["gpt-590m"]
    code, _, err = run(*words.format("gpt-10m").split(), "--pretrained")
    assert code == 2
    assert "--pretrained is for gpt-111m, " in err
