"""The command line, through its real entry point. Oracles: the library's own results; one line and exit code 2."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata

import pytest
import torch

from octoscale import cli
from octoscale.cli.main import app
from octoscale.kernels.table import choose

COMMANDS = [
    *("info", "formats", "models", "inspect", "validate", "sweep", "demo", "train", "report", "diagnose"),
    *("bench quantize", "bench linear", "bench train", "bench generate", "quantize", "generate"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(run, command):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert "--json" in out


def test_the_room_says_which_file_has_which_commands():
    """Oracle: the commands that the files put into the app; a file with one command has its name."""
    rows = dict(re.findall(r"^    (\w+) +(.*)$", cli.__doc__, re.MULTILINE))
    found: dict[str, list[str]] = {}
    for command in app.registered_commands:
        found.setdefault(command.callback.__module__.rpartition(".")[2], []).append(command.callback.__name__)
    for file, names in found.items():
        assert (rows[file].split(", ") if len(names) > 1 else [file]) == names


def test_version_is_the_package_s(run):
    """Oracle: what pip knows of the installed package."""
    code, out, err = run("--version")
    assert (code, out, err) == (0, f"octoscale {metadata.version('octoscale')}\n", "")


def test_help_does_not_import_torch():
    script = (
        "import atexit, sys; sys.argv = ['octoscale', '--help']\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        "from octoscale.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "validate" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_formats_prints_table_7(run):
    rows = {row["name"]: row for row in json.loads(run("formats", "--json")[1])}
    assert {name: row["max"] for name, row in rows.items()} == {
        "e4m3fn": 448,
        "e5m2": 57344,
        "e4m3fnuz": 240,
        "e5m2fnuz": 57344,
    }
    _, out, _ = run("formats")
    for number in ("57344", "448", "240", "2^-10", "2^-17", "2^-7", "2^-14", "2^-15"):
        assert number in out


def test_inspect_names_every_module_and_reason(run, checkpoint):
    report = json.loads(run("inspect", checkpoint, "--skip", "down_proj", "--json")[1])
    modules = {row["module"]: row for row in report["modules"]}
    assert modules["model.layers.0.self_attn.q_proj"]["converted"]
    assert modules["model.layers.0.mlp.down_proj"]["reason"] == "skip pattern 'down_proj'"
    assert modules["lm_head"]["reason"] == "head"
    assert "12 linear layers in FP8" in run("inspect", checkpoint, "--skip", "down_proj")[1]


def test_validate_prints_what_summary_json_holds(run, checkpoint, text, tmp_path):
    args = ["validate", checkpoint, "--scaling", "bf16", "--scaling", "amax", "--scaling", "cscale:-1"]
    code, out, _ = run(*args, "--text", text, "--window", 32, "--tokens", 100, "--out", tmp_path / "run", "--json")
    printed = json.loads(out)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert code == 0
    assert summary["tokens"] == 96
    assert (summary["backend"], summary["reason"]) == (choose("cpu").name, choose("cpu").reason)
    assert set(summary["perplexity"]) == {"bf16", "amax", "cscale"}
    assert {key: printed[key] for key in summary} == summary
    excess = printed["perplexity_excess"]
    ratio = summary["perplexity"]["amax"] / summary["perplexity"]["bf16"]
    assert (excess["against"], list(excess["scalings"])) == ("bf16", ["amax", "cscale:-1"])
    assert excess["scalings"]["amax"]["estimate"] == pytest.approx(ratio - 1, abs=1e-9)
    assert excess["scalings"]["amax"]["windows"] == 3
    assert all((tmp_path / "run" / "figures").joinpath(path).exists() for path in printed["figures"])


def test_sweep_finds_a_range_and_report_shows_it_again(run, checkpoint, text, tmp_path):
    args = [
        "sweep",
        checkpoint,
        "--bias",
        "-20:2",
        "--all",
        "--text",
        text,
        "--window",
        32,
        "--tokens",
        64,
        "--out",
        "run",
    ]
    code, out, _ = run(*args)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert code == 0
    assert len(summary["perplexity"]["cscale"]) == 23
    assert summary["cscale_range"]["text"] in out
    assert summary["cscale_range"]["text"] in run("report", "run")[1]


def test_a_task_is_answered_under_each_scaling(run, checkpoint, text, tmp_path):
    task = tmp_path / "task.jsonl"
    task.write_text('{"query": "Q", "choices": ["a", "bb"], "gold": 0}\n' * 3)
    args = ["validate", checkpoint, "--text", text, "--window", 32, "--tokens", 64, "--task", task, "--limit", 2]
    summary = json.loads(run(*args, "--json")[1])
    assert set(summary["tasks"]["task"]["scores"]) == {"bf16", "amax"}
    assert summary["tasks"]["task"]["items"] == 2
    assert set(summary["perplexity"]) == {"bf16", "amax"}


def test_tasks_alone_read_no_text_and_keep_each_item(run, checkpoint, tmp_path):
    """Two runs give the same files."""
    (tmp_path / "include").mkdir()
    row = '{"query": "Q", "choices": ["a", "bb"], "gold": 0}\n'
    (tmp_path / "include" / "piqa.jsonl").write_text(row * 3)
    args = ["validate", checkpoint, "--tasks", "piqa", "--include", tmp_path / "include", "--out"]
    code, out, _ = run(*args, "first")
    assert code == 0
    assert "piqa" in out
    assert run(*args, "second")[0] == 0
    first, second = (tmp_path / name / "items" for name in ("first", "second"))
    assert sorted(path.name for path in first.iterdir()) == ["piqa.amax.jsonl", "piqa.bf16.jsonl"]
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    assert "perplexity" not in json.loads((tmp_path / "first" / "summary.json").read_text())
    assert run(*args, "first", "--overwrite")[0] == 0


def test_paper_sizes_read_bytes_and_say_so(run, text, monkeypatch):
    from octoscale.models import loading

    small = loading.Size(
        family="gpt", d_model=16, num_layers=1, num_heads=2, num_kv_heads=2, d_ffn=32, max_positions=64
    )
    monkeypatch.setitem(loading.SIZES, "gpt-111m", small)
    code, out, _ = run("validate", "gpt-111m", "--text", text, "--window", 32, "--tokens", 64)
    assert code == 0
    assert "random weights" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["validate", "MODEL", "--scaling", "fp9"], "unknown scaling 'fp9': write one of amax"),
        (["validate", "MODEL", "--scaling", "cscale:many"], "its parameters are whole numbers"),
        (["validate", "MODEL", "--scaling", "cscale:500"], "outside -126..126"),
        (["validate", "MODEL", "--scaling", "amax", "--scaling", "amax"], "a scaling is named twice"),
        (["validate", "MODEL", "--formats", "e9"], "unknown format set 'e9'"),
        (["validate", "MODEL", "--dtype", "int8"], "unknown dtype 'int8'"),
        (["validate", "MODEL", "--text", "nowhere.txt"], "no such text file: nowhere.txt"),
        (["validate", "MODEL", "--text", "TEXT", "--window", "60", "--tokens", "32"], "do not fill a window of 60"),
        (["validate", "MODEL", "--text", "TEXT", "--window", "512"], "longer than the model's 64 positions"),
        (["validate", "MODEL", "--text", "TEXT", "--window", "32", "--skip", "downproj"], "near names: down_proj"),
        (["validate", "MODEL", "--text", "TEXT", "--window", "32", "--every", "-1"], "every=-1"),
        (["validate", "nowhere"], "unknown model 'nowhere'"),
        (["validate", "MODEL", "--task", "nowhere.jsonl"], "no such task file"),
        (["validate", "MODEL", "--tasks", "piqq"], "unknown task 'piqq': near names: piqa"),
        (["validate", "MODEL", "--tasks", "piqa,,"], "names with commas between them"),
        (["validate", "MODEL", "--tasks", "piqa", "--include", "nowhere"], "no such folder: nowhere"),
        (["validate", "MODEL", "--tasks", "piqa", "--batch-size", "0"], "batch_size=0: must be at least 1"),
        (["validate", "MODEL", "--tasks", "paper-gpt"], "paper-gpt asks classifiers, and "),
        (["sweep", "MODEL", "--bias", "2:1"], "cannot read the biases '2:1'"),
        (["sweep", "MODEL", "--bias", "-200:0"], "constant scale_bias -200 is outside -126..126"),
        (["sweep", "MODEL", "--roles", "weight"], "--roles weight: what a validation casts are weight,input"),
        (
            ["sweep", "MODEL", "--text", "TEXT", "--window", "32", "--tokens", "32"],
            "one window has no interval, so a sweep",
        ),
        (["sweep", "MODEL", "--resume"], "--resume goes on with the run that --out names"),
        (["sweep", "MODEL", "--resume", "--out", "run", "--overwrite"], "that --out names, not --overwrite"),
        (["inspect", "MODEL", "--scaling", "bf16"], "scaling bf16 is no FP8"),
        (["report", "nowhere"], "nowhere is not a run"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_leaves_nothing(run, checkpoint, text, tmp_path, args, message):
    args = [{"MODEL": checkpoint, "TEXT": text}.get(arg, arg) for arg in args]
    before = sorted(tmp_path.iterdir())
    code, out, err = run(*args)
    assert code == 2
    assert out == ""
    error = [line for line in err.splitlines() if line.startswith("octoscale: error: ")]
    assert len(error) == 1
    assert message in error[0]
    assert "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_is_not_overwritten_unless_asked(run, checkpoint, text, tmp_path):
    args = ["validate", checkpoint, "--text", text, "--window", 32, "--tokens", 32, "--out", tmp_path / "run"]
    assert run(*args)[0] == 0
    content = (tmp_path / "run" / "summary.json").read_text()
    code, _, err = run(*args)
    assert code == 2
    assert "already holds a run" in err
    assert (tmp_path / "run" / "summary.json").read_text() == content
    assert run(*args, "--overwrite")[0] == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    code, _, err = run(*args[:-1], tmp_path / "mine", "--overwrite")
    assert code == 2
    assert "not a run" in err
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_ctrl_c_leaves_a_run_that_report_can_show(run, checkpoint, text, monkeypatch):
    from octoscale.validation import one_scaling

    real = one_scaling.perplexity

    def interrupted(model, windows, *rest):
        if any(hasattr(module, "fp8") and "cscale" in module.fp8.recipe.name for module in model.modules()):
            raise KeyboardInterrupt
        return real(model, windows, *rest)

    monkeypatch.setattr(one_scaling, "perplexity", interrupted)
    args = ["sweep", checkpoint, "--text", text, "--window", 32, "--tokens", 64, "--out", "run"]
    code, _, err = run(*args)
    assert code == 130
    assert "octoscale report run" in err
    code, out, _ = run("report", "run")
    assert code == 0
    assert "amax" in out


def test_a_full_disk_is_one_line(run, checkpoint, text, monkeypatch):
    from octoscale.runs import scales

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scales.pl.DataFrame, "write_parquet", full)
    code, _, err = run("validate", checkpoint, "--text", text, "--window", 32, "--tokens", 64, "--out", "run")
    assert code == 2
    assert "No space left on device" in err.splitlines()[-1]


def test_report_draws_what_was_recorded_from_python(run, checkpoint, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    import octoscale

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    octoscale.convert(model, octoscale.Recipe.amax())
    ids = torch.arange(32)[None]
    with octoscale.record(model, tmp_path / "training"):
        model(input_ids=ids, labels=ids).loss.backward()
    code, out, _ = run("report", "training")
    assert code == 0
    assert "figures: training" in out
    octoscale.revert(model)
    octoscale.validate(model.eval(), ["bf16", "amax"], windows=ids, folder=tmp_path / "python")
    code, out, _ = run("report", "python")
    assert code == 0
    assert "perplexity over 32 tokens" in out


def test_a_run_without_fp8_has_a_table_and_no_figures(run, checkpoint, text):
    code, out, _ = run("validate", checkpoint, "--scaling", "bf16", "--text", text, "--window", 32, "--tokens", 32)
    assert code == 0
    assert "0 figures" in out


def test_info_says_which_backend_and_why(run):
    """Oracle: the dispatch table."""
    code, out, _ = run("info", "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["backend"], facts["reason"]) == (choose("cpu").name, choose("cpu").reason)
    assert facts["threads"] == torch.get_num_threads()
    assert choose("cpu").reason[:40] in run("info")[1]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("OCTOSCALE_ISA", "sse9", "OCTOSCALE_ISA=sse9: the instruction sets are scalar, avx2, avx512, amx"),
        ("OCTOSCALE_BACKEND", "cuda", "OCTOSCALE_BACKEND=cuda: the backends are native, scaled_mm, portable"),
    ],
)
def test_a_forced_backend_that_does_not_exist_is_one_line(variable, value, message):
    script = "import sys; sys.argv = ['octoscale', 'info']; from octoscale.cli.main import main; main()"
    command = [sys.executable, "-c", script]
    if variable == "OCTOSCALE_ISA" and choose("cpu").name != "native":
        pytest.skip("the C++ core is not built")
    done = subprocess.run(command, env=os.environ | {variable: value}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"octoscale: error: {message}\n")


def test_train_prints_what_summary_json_holds(run, checkpoint, text, tmp_path):
    args = ["train", checkpoint, "--text", text, "--window", 32, "--steps", 2, "--batch", 2]
    code, out, err = run(*args, "--out", tmp_path / "run", "--json")
    printed = json.loads(out)
    assert code == 0
    assert "step 2: loss" in err
    assert {**json.loads((tmp_path / "run" / "summary.json").read_text()), "run": str(tmp_path / "run")} == printed
    assert "validation loss" in run(*args, "--out", tmp_path / "again")[1]
    assert run(*args, "--out", tmp_path / "run")[0] == 2


def test_train_with_a_loss_that_is_not_finite_is_one_line(run, checkpoint, text, tmp_path):
    args = ["train", checkpoint, "--text", text, "--window", 32, "--steps", 9, "--learning-rate", 1e30]
    code, _, err = run(*args, "--out", tmp_path / "run")
    assert code == 2
    assert err.splitlines()[-1].startswith("octoscale: error: step 2: the gradient that reaches")


def test_train_resumes_with_the_same_plan_only(run, checkpoint, text, tmp_path):
    args = ["train", checkpoint, "--text", text, "--window", 32, "--batch", 2, "--out", tmp_path / "run"]
    assert run(*args, "--steps", 2)[0] == 0
    code, out, _ = run(*args, "--steps", 3, "--resume", "--json")
    assert code == 0
    assert json.loads(out)["resumed_after_step"] == 2
    code, _, err = run(*args, "--steps", 4, "--resume", "--scaling", "cscale:1")
    assert code == 2
    assert err.splitlines()[-1].endswith("was trained with scaling amax, not cscale:1: resume it with the same")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--resume"], "--resume goes on with the run that --out names"),
        (["--resume", "--out", "run", "--overwrite"], "that --out names, not --overwrite"),
        (["--task", "nowhere.tsv"], "no such task file: nowhere.tsv"),
        (["--task", "cola"], "unknown task 'cola': name one of sst2, mnli, qqp"),
        (["--eval-task", "TEXT"], "give --task the ones to train on"),
        (["--loss-scale", "often"], "loss scale 'often': a number above 0, dynamic, or none"),
        (["--preset", "paper"], "--preset paper has no row for"),
        (["--window", 512], "a window of 512 tokens is longer than the model's 64 positions"),
        (["--text", "EMPTY"], "empty.txt has 0 tokens, which do not fill a window of 64"),
        (["--text", "hf:"], "cannot read 'hf:': a data set is hf:NAME"),
        (["--report-to", "nowhere"], "cannot report to nowhere: install its package"),
    ],
)
def test_train_with_bad_input_is_one_line_and_leaves_nothing(run, checkpoint, text, tmp_path, args, message):
    (tmp_path / "empty.txt").write_text("")
    places = {"TEXT": text, "EMPTY": tmp_path / "empty.txt"}
    before = sorted(tmp_path.iterdir())
    code, out, err = run("train", checkpoint, "--window", 64, *[places.get(arg, arg) for arg in args])
    assert (code, out) == (2, "")
    assert message in next(line for line in err.splitlines() if line.startswith("octoscale: error: "))
    assert sorted(tmp_path.iterdir()) == before


def test_a_preset_gives_way_to_options(run, text, tmp_path, monkeypatch):
    """Oracle: the plan in run.json: the paper's row for 111M, but for the two options that were given."""
    from octoscale.models import loading

    small = loading.Size(
        family="gpt", d_model=16, num_layers=1, num_heads=2, num_kv_heads=2, d_ffn=32, max_positions=128
    )
    monkeypatch.setitem(loading.SIZES, "gpt-111m", small)
    args = ["--preset", "paper", "--accumulate", 1, "--dtype", "fp32", "--steps", 1, "--text", text]
    code, _, err = run("train", "gpt-111m", *args, "--out", tmp_path / "run")
    assert code == 0, err
    plan = json.loads((tmp_path / "run" / "run.json").read_text())["plan"]
    assert (plan["scaling"], plan["formats"], plan["window"], plan["loss_scale"]) == (
        "amax:margin=3",
        "fnuz",
        120,
        "512",
    )
    assert (plan["accumulate"], plan["dtype"]) == (1, "fp32")


@pytest.mark.parametrize("scaling", [None, "amax", "cscale:1", "bf16", "fp16", "fp32"])
@pytest.mark.parametrize("dtype", [None, "bf16", "fp16", "fp32"])
@pytest.mark.parametrize("more", [{}, {"--loss-scale": "none"}, {"--batch": "3", "--accumulate": "5"}])
def test_what_is_typed_wins_over_a_preset(run, monkeypatch, scaling, dtype, more):
    """Oracle: each typed option stands in the plan; only two precisions that were both typed contradict each other."""
    plans = []
    monkeypatch.setattr("octoscale.cli.train._train", lambda plan, *_: plans.append(plan))
    words = {"--scaling": scaling, "--dtype": dtype, **more}
    typed = {option: value for option, value in words.items() if value is not None}
    args = [word for pair in typed.items() for word in pair]
    code, _, err = run("train", "gpt-111m", "--preset", "paper", *args)
    if None not in (scaling, dtype) and scaling in ("bf16", "fp16", "fp32") and scaling != dtype:
        assert (code, plans) == (2, [])
        assert f"--dtype {scaling}" in err.splitlines()[-1]
        return
    assert code == 0, err
    for option, value in typed.items():
        assert str(getattr(plans[0], option.removeprefix("--").replace("-", "_"))) == value
    assert plans[0].scaling == (scaling or "amax:margin=3")
    assert plans[0].dtype == (dtype or (scaling if scaling in ("bf16", "fp16", "fp32") else "fp16"))
    assert (plans[0].window, plans[0].learning_rate) == (120, 4e-5)


def test_quantize_writes_a_checkpoint_and_says_what_it_did(run, checkpoint, tmp_path):
    code, out, _ = run("quantize", checkpoint, tmp_path / "fp8", "--scaling", "cscale:2", "--json")
    done = json.loads(out)
    assert code == 0
    assert (done["layers"], done["layout"]) == (14, "compressed-tensors")
    assert done["bytes_after"] < done["bytes_before"]
    code, out, err = run("quantize", checkpoint, tmp_path / "fp8")
    assert (code, out) == (2, "")
    assert err == f"octoscale: error: {tmp_path / 'fp8'} exists already: choose another folder, or --overwrite\n"
