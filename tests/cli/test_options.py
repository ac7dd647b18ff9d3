"""Options are the fields of settings. Oracles: the dataclasses themselves, and what typer makes of a signature."""

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import typer

from octoscale.advise.settings import Advice
from octoscale.checkpoints.settings import Quantization
from octoscale.cli import app as cli
from octoscale.cli.main import app
from octoscale.cli.options import Words, parameters_of, takes
from octoscale.conversion.settings import Inspection
from octoscale.inference.settings import Chat, Generation
from octoscale.models.settings import Materialization
from octoscale.paper.settings import Reproduction
from octoscale.parity.settings import Parity
from octoscale.system.settings import argument, setting
from octoscale.training.planning import Planning
from octoscale.training.settings import Training
from octoscale.validation.settings import Demo, Sweep, Validation, parse_biases

SETTINGS = {
    "inspect": Inspection,
    "models": Materialization,
    "demo": Demo,
    "validate": Validation,
    "sweep": Sweep,
    "advise": Advice,
    "parity": Parity,
    "reproduce": Reproduction,
    "train": Training,
    "plan": Planning,
    "quantize": Quantization,
    "generate": Generation,
    "chat": Chat,
}
COMMANDS = typer.main.get_command(app).commands


@dataclass(frozen=True, kw_only=True)
class Base:
    model: str = argument("Which.")
    seed: int = setting(7, "Of chance.")


@dataclass(frozen=True, kw_only=True)
class Made(Base):
    """One field of each kind."""

    words: tuple[str, ...] = setting((), "Several.")
    by_layer: bool = setting(False, "Otherwise.", option="--batch")
    huge: bool = setting(True, "On unless off.")
    task: Path | None = setting(None, "A file.")
    rate: float = setting(0.5, "Positive.")

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rate {self.rate}")


@pytest.fixture
def read():
    """What a command of the settings `Made` gets for some words."""
    seen: list[tuple[Words[Made], dict[str, Any]]] = []
    group = typer.Typer(add_completion=False)

    @group.command()
    @takes(Made)
    def command(words: Words[Made], loud: bool = False) -> None:
        """A command."""
        seen.append((words, {"loud": loud}))

    def call(*words: str) -> tuple[Words[Made], dict[str, Any]]:
        typer.main.get_command(group).main(list(words), standalone_mode=False)
        return seen.pop()

    return call


def test_what_is_not_typed_is_the_default_of_the_field(read):
    words, own = read("m")
    assert words.settings() == Made(model="m")
    assert (words.typed, own) == ({"model"}, {"loud": False})


def test_what_is_typed_becomes_the_field(read):
    words, own = read(
        "m", "--words", "a", "--words", "b", "--batch", "--no-huge", "--task", "x", "--rate", "2", "--loud"
    )
    assert own == {"loud": True}
    made = words.settings()
    assert (list(made.words), made.by_layer, made.huge, made.task, made.rate) == (["a", "b"], True, False, Path("x"), 2)
    assert words.typed == {"model", "words", "by_layer", "huge", "task", "rate", "loud"}


def test_settings_are_checked_after_what_comes_between(read):
    words, _ = read("m", "--rate", "-1")
    assert words.values["rate"] == -1
    with pytest.raises(ValueError, match="rate -1"):
        words.settings()


def test_a_setting_without_help_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Mute:
        seed: int = 0

    with pytest.raises(ValueError, match="setting seed has no help"):
        takes(Mute)


@pytest.mark.parametrize(("name", "settings"), SETTINGS.items())
def test_a_command_has_an_option_for_each_field_and_states_nothing_again(name, settings):
    """Name, help and default of each option are those of the field."""
    shown = {parameter.name: parameter for parameter in COMMANDS[name].params}
    assert list(parameters_of(settings)) == [key for key in shown if key in {field.name for field in fields(settings)}]
    for field in fields(settings):
        parameter = shown[field.name]
        assert parameter.help.startswith(field.metadata["help"])
        assert parameter.required == (field.default is MISSING)
        if not parameter.required:
            assert (parameter.default or None) == (field.default or None)


def test_the_help_has_the_groups_and_cuts_no_text_off(run):
    code, text, _ = run("--help")
    assert code == 0
    order = [text.index(f"{name}:") for name in cli.GROUPS]
    assert order == sorted(order)
    assert "..." not in text.partition("Options:")[2]
    flat = " ".join(text.split())
    for name, command in COMMANDS.items():
        assert f"{name} {cli.first_sentence(command.help)}" in flat
        assert cli.first_sentence(command.help).endswith(".")


def test_every_command_is_in_a_group():
    assert {command.rich_help_panel for command in COMMANDS.values()} == set(cli.GROUPS)


def test_a_sweep_is_a_validation_of_each_constant():
    shared = {"model": "m", "dtype": "fp32", "skip": ("x",), "limit": 3, "task": Path("t"), "every": 2}
    scalings = ("fp32", "amax", "cscale:-1", "cscale:0", "cscale:1")
    assert Sweep(bias="-1:1", **shared).validation() == Validation(scalings=scalings, tokens=8192, **shared)


def test_a_sweep_of_roles_is_a_validation_of_each_pair():
    pairs = [f"cscale:weight={weight},input={input}" for weight in (-1, 2) for input in (-1, 2)]
    made = Sweep(model="m", bias="-1,2", roles="weight,input")
    assert list(made.validation().scalings) == ["bf16", "amax", *pairs]
    assert made.num_expected == 6
    assert Sweep(model="m", bias="-1,2", roles="input,weight").wanted == made.wanted


@pytest.mark.parametrize("roles", ["", "weight", "weight,weight", "weight,grad_output", "weight,input,input", "x"])
def test_other_roles_are_refused(roles):
    with pytest.raises(ValueError, match="what a validation casts are weight,input"):
        Sweep(model="m", roles=roles)


@pytest.mark.parametrize(("words", "tokens", "biases"), [({}, 8192, "-8:6"), ({"quick": True}, 1024, "-8,-1,6")])
def test_the_demo_is_a_validation(words, tokens, biases):
    made = Demo(**words).validation()
    assert (made.model, made.tokens) == ("smollm2-135m", tokens)
    assert list(made.scalings) == ["bf16", "amax", *(f"cscale:{bias}" for bias in parse_biases(biases))]
    assert Demo(tokens=600, **words).validation().tokens == 600


@pytest.mark.parametrize(("words", "option"), [("amax:formats=fnuz", "--formats"), ("bf16", "--skip")])
def test_what_inspect_would_not_read_is_refused(run, checkpoint, words, option):
    code, _, err = run("inspect", checkpoint, "--scaling", words, option, "ocp")
    assert code == 2
    assert err.splitlines()[-1].startswith(f"octoscale: error: {option} ")


@pytest.mark.parametrize("option", [("--layers", 1), ("--seed", 0), ("--overwrite",)])
def test_what_models_reads_only_to_materialize_is_refused_without(run, option):
    assert run("models", *option)[::2] == (2, f"octoscale: error: {option[0]} is for --materialize\n")


@pytest.mark.parametrize(
    ("where", "is_taken"), [(["OUT"], True), (["--out", "OUT"], True), ([], False), (["OUT", "--out", "OUT"], False)]
)
def test_a_checkpoint_goes_where_out_says_by_place_or_by_name(run, checkpoint, tmp_path, where, is_taken):
    where = [tmp_path / "new" if word == "OUT" else word for word in where]
    code, _, err = run("quantize", checkpoint, *where)
    assert (tmp_path / "new").exists() == is_taken
    assert is_taken == (code == 0), err
    assert is_taken or err.splitlines()[-1].startswith("octoscale: error: name the new checkpoint's folder, once: OUT")
