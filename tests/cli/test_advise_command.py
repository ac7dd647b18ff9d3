"""The command advise, and --recipe. Oracles: the files that it writes, the same scaling and layers said as options."""

import json

import pytest
from checkpoints import contents, note, save_tiny_llama
from models import tiny_llama

from octoscale.advise.cost import cost_of
from octoscale.numerics.recipe_file import read_recipe
from octoscale.runs.folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

WORDS = ("--tokens", 64, "--window", 16, "--keep-at-most", 2)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('scaling = "cscale:2"\nformats = "fnuz"\nskip = ["layers.0.*", "down_proj"]\n')
    return path


def test_an_advice_is_tables_and_files(run, checkpoint, text, tmp_path):
    """The figures are pictures, the recipe can be used, and two runs write the same but for run.json."""
    words = ("advise", checkpoint, "--text", text, "--scaling", "cscale:7", "--bound", "0.001%", *WORDS)
    code, out, err = run(*words, "--out", "a")
    assert code == 0, err
    assert "the costliest layers" in out
    assert "SQNR" in out
    files = contents(tmp_path / "a")
    assert sorted(name for name in files if not name.startswith("cells/")) == [
        "advice.json",
        "advice.md",
        "figures/advice.png",
        "figures/advice.svg",
        "recipe.toml",
        "run.json",
    ]
    content = json.loads(files["advice.json"])
    assert content["answer"][0] in out.replace("\n", " ")
    assert len(content["layers"]) == 14
    assert content["answer"][0] in files["advice.md"].decode()
    assert read_recipe(tmp_path / "a" / "recipe.toml").skip == tuple(content["keep"] or ())
    assert run(*words, "--out", "b", "--json")[0] == 0
    again = contents(tmp_path / "b")
    assert {name for name in files if again[name] != files[name]} == {"run.json"}
    assert (
        run("validate", checkpoint, "--text", text, "--window", 16, "--recipe", "a/recipe.toml", "--out", "c")[0] == 0
    )
    assert run(*words, "--out", "a")[0] == 2
    assert run(*words, "--out", "a", "--overwrite")[0] == 0


def test_json_is_what_the_file_holds(run, checkpoint, text, tmp_path):
    code, out, err = run("advise", checkpoint, "--text", text, "--verify-text", "pydoc", *WORDS, "--out", "a", "--json")
    assert code == 0, err
    printed, written = json.loads(out), json.loads((tmp_path / "a" / "advice.json").read_text())
    assert printed == written | {"run": "a", "figures": ["a/figures/advice.png"]}
    assert written["verify_text"] == "pydoc"
    code, out, err = run("report", "a", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == printed | {"page": "a/report.html"}


def test_report_shows_an_advice_again_and_makes_its_figure_again(run, checkpoint, text, tmp_path):
    code, printed, err = run("advise", checkpoint, "--text", text, *WORDS, "--out", "a")
    assert code == 0, err
    before = contents(tmp_path / "a")
    for picture in (tmp_path / "a" / "figures").iterdir():
        picture.unlink()
    to_page = "to explore it, open a/report.html in a browser\n"
    assert run("report", "a") == (0, printed + to_page, "")
    (tmp_path / "a" / "report.html").unlink()
    assert contents(tmp_path / "a") == before
    (tmp_path / "a" / "recipe.toml").unlink()
    code, out, _ = run("report", "a")
    assert (code, out) == (0, printed.replace("the recipe: --recipe a/recipe.toml\n", "") + to_page)
    code, out, err = run("report", "a", "--module", "model.layers.0.mlp.up_proj")
    assert (code, out) == (2, "")
    assert "is not in this run; it recorded none" in err
    assert run("report", "a", "a")[:2] == (2, "")


def test_an_advice_that_ctrl_c_stopped_says_how_to_go_on(run, checkpoint, text, tmp_path, monkeypatch):
    words = ("advise", checkpoint, "--text", text, *WORDS)
    assert run(*words, "--out", "whole")[0] == 0
    left = iter(range(5))

    def stopped(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return cost_of(*args)

    with monkeypatch.context() as patch:
        patch.setattr("octoscale.advise.keeping.cost_of", stopped)
        code, out, err = run(*words, "--out", "a")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; to go on: the same command with --resume --out a"
    code, out, err = run("report", "a")
    assert (code, err) == (0, "")
    assert out.startswith(
        "no results yet; a/cells holds what was measured: the same command with --resume --out a goes"
    )
    (tmp_path / "a" / "report.html").unlink()
    code, _, err = run(*words, "--out", "a")
    assert code == 2
    assert "a already holds a run: choose another folder, or --overwrite" in err.splitlines()[-1]
    assert run(*words, "--out", "a", "--resume")[0] == 0
    files, whole = contents(tmp_path / "a"), contents(tmp_path / "whole")
    assert {name for name in whole if files.get(name) != whole[name]} == {"run.json"}
    assert files.keys() == whole.keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--resume", "--resume goes on with the run that --out names"),
        ("--resume --overwrite --out a", "--resume goes on with the run that --out names, not --overwrite"),
        ("--resume --out taken", "taken holds a run without results to go on from: choose another folder"),
        ("--out taken", "taken already holds a run: choose another folder, or --overwrite"),
        ("--resume --out strange", "strange holds files that are not a run: choose another folder"),
    ],
)
def test_what_cannot_be_gone_on_with_is_one_line_before_weights_are_loaded(
    run, checkpoint, text, tmp_path, monkeypatch, words, message
):
    RunFolder.create(tmp_path / "taken", {"plan": {}}).append_metrics({"loss": 1.0})
    note(tmp_path / "strange", "x")
    before = contents(tmp_path)
    monkeypatch.setattr("octoscale.models.loading.load", None)
    code, out, err = run("advise", checkpoint, "--text", text, *WORDS, *words.split())
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--bound much", "cannot read the bound 'much': write a share above 0, as 1% or 0.01"),
        ("--bound 3", "cannot read the bound '3'"),
        ("--bound=-1%", "cannot read the bound '-1%'"),
        ("--bound nan%", "cannot read the bound 'nan%'"),
        ("--scaling bf16", "scaling bf16 is no FP8: there is nothing to advise on"),
        ("--scaling delayed", "scaling delayed depends on the steps before: advise takes amax and cscale"),
        ("--scaling amax:3", "unknown scaling 'amax:3'"),
        ("--dtype fp16", "dtype 'fp16': advise computes gradients, in fp32 or bf16"),
        ("--keep-at-most 0", "keep_at_most=0: must be at least 1"),
        ("--window 64 --tokens 100", "100 tokens do not fill two windows of 64, which an interval needs"),
        ("--window 300 --tokens 600", "a window of 300 tokens is longer than the model's 64 positions"),
        ("--window 16 --skip nothing", "skip pattern 'nothing' matches no linear layer"),
        ("--verify-text nowhere.txt", "no such text file: nowhere.txt"),
    ],
)
def test_what_cannot_be_had_is_one_line_before_weights_are_loaded(
    run, checkpoint, text, tmp_path, monkeypatch, words, message
):
    monkeypatch.setattr("octoscale.models.loading.load", None)
    code, out, err = run("advise", checkpoint, "--text", text, *words.split(), "--out", "a")
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "a").exists()


def test_a_text_too_short(run, checkpoint, tmp_path):
    (tmp_path / "short.txt").write_text("x" * 40)
    code, _, err = run("advise", checkpoint, "--text", "short.txt", "--window", 16, "--tokens", 32, "--out", "a")
    assert code == 2
    assert "the text short.txt is too short: an interval needs two windows of 16 tokens for the search" in err
    assert not (tmp_path / "a").exists()


def test_a_model_in_fp8_already(run, checkpoint, text, tmp_path):
    assert run("quantize", checkpoint, tmp_path / "fp8")[0] == 0
    code, _, err = run("advise", tmp_path / "fp8", "--text", text, *WORDS, "--out", "a")
    assert code == 2
    assert "fp8 holds FP8 weights already: advise on the checkpoint that it was made from" in err
    assert not (tmp_path / "a").exists()


def test_a_model_that_does_not_predict_tokens(run, text, tmp_path):
    from transformers import BertConfig, BertModel

    sizes = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    BertModel(BertConfig(**sizes)).save_pretrained(tmp_path / "bert")
    code, _, err = run("advise", tmp_path / "bert", "--text", text, *WORDS, "--out", "a")
    assert code == 2
    assert "bert is a BertModel, which does not predict the next token" in err.splitlines()[-1]


# --recipe


def scores(folder):
    return RunFolder(folder).read_json(folder / "summary.json")["perplexity"]


def test_validate_with_a_recipe_is_validate_with_its_words(run, checkpoint, text, recipe, tmp_path):
    shared = ("validate", checkpoint, "--text", text, "--window", 16)
    assert run(*shared, "--recipe", recipe, "--out", "a")[0] == 0
    said = ("--scaling", "bf16", "--scaling", "cscale:2,formats=fnuz", "--skip", "layers.0.*", "--skip", "down_proj")
    assert run(*shared, *said, "--out", "b")[0] == 0
    assert scores(tmp_path / "a") == scores(tmp_path / "b")
    assert list(scores(tmp_path / "a")) == ["bf16", "cscale:2,formats=fnuz"]


def test_quantize_and_inspect_with_a_recipe(run, checkpoint, recipe, tmp_path):
    said = ("--scaling", "cscale:2,formats=fnuz", "--skip", "layers.0.*", "--skip", "down_proj")
    recipe.write_text(recipe.read_text().replace("fnuz", "ocp"))
    said = ("--scaling", "cscale:2", *said[2:])
    assert run("quantize", checkpoint, tmp_path / "a", "--recipe", recipe)[0] == 0
    assert run("quantize", checkpoint, tmp_path / "b", *said)[0] == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    one, other = (run("inspect", checkpoint, *words)[1] for words in (("--recipe", recipe), said))
    assert one == other
    assert "cscale:2" in one


def test_train_with_a_recipe(run, checkpoint, text, recipe, tmp_path):
    words = ("train", checkpoint, "--text", text, "--window", 16, "--steps", 1, "--save-every", 0, "--recipe", recipe)
    code, _, err = run(*words, "--out", "a")
    assert code == 0, err
    plan = RunFolder(tmp_path / "a").read_json(tmp_path / "a" / "run.json")["plan"]
    assert (plan["scaling"], plan["skip"], plan["recipe"]) == (
        "cscale:2,formats=fnuz",
        ["layers.0.*", "down_proj"],
        str(recipe),
    )


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("validate M", "--scaling amax"),
        ("validate M", "--skip up_proj"),
        ("validate M", "--formats ocp"),
        ("validate M", "--formats fnuz"),
        ("quantize M new", "--scaling amax"),
        ("quantize M new", "--skip up_proj"),
        ("train M", "--scaling amax"),
        ("train M", "--formats ocp"),
        ("inspect M", "--scaling cscale:1"),
        ("inspect M", "--skip up_proj"),
    ],
)
def test_a_recipe_and_what_it_says_are_not_typed_at_once(run, checkpoint, recipe, tmp_path, command, option):
    words = [str(checkpoint) if word == "M" else word for word in command.split()]
    code, out, err = run(*words, "--recipe", recipe, *option.split())
    assert (code, out) == (2, "")
    (name, _) = option.split()
    assert f"--recipe {recipe} says scaling, formats and skip: leave {name} out" in err.splitlines()[-1]


def test_a_recipe_whose_skip_matches_nothing_is_an_error(run, checkpoint, text, recipe):
    recipe.write_text('scaling = "amax"\nskip = ["layers.7.*"]\n')
    for words in (
        ("validate", checkpoint, "--text", text, "--window", 16),
        ("inspect", checkpoint),
        ("quantize", checkpoint, "new"),
    ):
        code, _, err = run(*words, "--recipe", recipe)
        assert code == 2
        assert "skip pattern 'layers.7.*' matches no linear layer" in err


def test_a_recipe_is_for_models_that_are_not_fp8_yet(run, checkpoint, text, recipe, tmp_path):
    assert run("quantize", checkpoint, tmp_path / "fp8")[0] == 0
    code, _, err = run("validate", tmp_path / "fp8", "--text", text, "--recipe", recipe)
    assert code == 2
    assert "holds FP8 weights with their scales already: leave --recipe out" in err


def test_a_preset_leaves_a_recipe_its_words(recipe):
    from octoscale.training.settings import Training, with_preset

    values = {"model": "gpt-111m", "batch": 4, "accumulate": 1, "scaling": "amax", "formats": "ocp", "recipe": recipe}
    made = Training(**with_preset("paper", values, {"recipe"}))
    assert (made.scaling, made.formats, made.dtype) == ("cscale:2,formats=fnuz", "ocp", "fp16")


def test_a_big_vocabulary_of_names_is_no_markup(tmp_path, run, text):
    """A model's name is text in the page and the tables."""
    folder = save_tiny_llama(tmp_path / "[bold]m|odel")
    code, _, err = run("advise", folder, "--text", text, *WORDS, "--out", "a")
    assert code == 0, err
    assert "[bold]m|odel" in (tmp_path / "a" / "advice.md").read_text()
    assert tiny_llama().config.num_hidden_layers == 2
