"""Each rule finds what it is for in rows as a run writes them, and what it tells to do can be done.

Oracle: parse_scaling, TOML and the options that octoscale has.
"""

import math
import re

import pytest
import typer
from asked_rules import found, note, steps
from written_runs import DOWN, row, write_run

import octoscale
from octoscale.cli.main import app
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.numerics.recipe_file import read_recipe
from octoscale.report.diagnosis.rules import RULES, examine
from octoscale.report.diagnosis.words import told

GRADIENT = {"role": "grad_output", "format": "e5m2", "scale_bias": 11}
SICK = {"amax": math.nan, "nonfinite": 1, "scale_bias": 0}
UP = "model.layers.{}.mlp.up_proj"


def layers(num_layers, num_steps=4, **changes):
    return [each for layer in range(num_layers) for each in steps(num_steps, layer=layer, **changes)]


def of_scaling(scaling, rows):
    return [each | {"scaling": scaling} for each in rows]


def weights(amax_of, num_steps=12):
    """The weights of four layers; amax_of: (layer, step) -> the largest magnitude, of which 4 is the scale."""
    return [
        row(role="weight", layer=layer, step=step, amax=amax_of(layer, step))
        for layer in range(4)
        for step in range(num_steps)
    ]


def growing():
    """The inputs of four layers, one of which grows by half with each step."""
    return [row(layer=n, step=step, amax=20 * (1.5**step if n == 2 else 1)) for n in range(4) for step in range(12)]


def constants(text, rows, **biases):
    """Rows of each role under constants."""
    of_roles = {"weight": {}, "input": {}, "grad_output": {"format": "e5m2"}}
    return [
        each | {"role": role, "scale_bias": bias, "scaling": text, **of_roles[role]}
        for role, bias in biases.items()
        for each in rows
    ]


def fp8_note(**content):
    return note(fp8=[DOWN.format(layer) for layer in range(3)], **content)


NOTED = {"phase": "validate", "scaling": "amax"}
CLIPPED = steps(3, saturated=50)
FLUSHED = steps(3, flushed=70)


#: Rule -> cases that it finds: rows, and notes and measurements if it needs some.
def ranks(*biases):
    """A weight with a scale of its own on each rank, and an input, which may have one."""
    return [
        row(rank=rank, role=role, scale_bias=bias, amax=20.0 / 2 ** (bias - 4))
        for role in ("weight", "input")
        for rank, bias in enumerate(biases)
    ]


CASES = {
    "nonfinite": [
        ([row(**SICK)],),
        ([row(role="weight", **SICK)],),
        ([row(**GRADIENT | SICK)],),
        (layers(2), [], [{**NOTED, "step": 3, "loss": None}]),
    ],
    "stale_weight": [
        (layers(2), [{**NOTED, "note": "stale_weight", "step": 1, "module": DOWN.format(0)}]),
        ([*layers(3, 6), *layers(2, 6, role="weight"), row(role="weight", layer=2)], [fp8_note()]),
    ],
    "foreign_scale": [([*layers(2), *steps(4, layer=2, scale_bias=3)],)],
    "loss_scale_twice": [(layers(2, **GRADIENT), [{**NOTED, "note": "loss_scale", "step": 0, "value": 2.0**20}])],
    "never_ran": [(layers(2), [fp8_note()])],
    "cast_twice": [
        ([*layers(3), *steps(4, layer=0)],),
        ([*layers(3, 12), *(row(layer=3, step=step, amax=16.0 + 2 * (step % 4)) for step in range(12))],),
    ],
    "ranks_disagree": [(ranks(4, 3),)],
    "scale_at_clamp": [
        ([*layers(2), *(row(layer=2, step=step, scale_bias=126, amax=2.0**-125) for step in range(4))],),
        ([row(step=step, **GRADIENT | {"scale_bias": 126, "amax": 2.0**-125}) for step in range(4)],),
    ],
    "delayed_lags": [(of_scaling("delayed:history=2", [*steps(4), row(step=4, amax=640.0, saturated=1)]),)],
    "outlier_growth": [(growing(),)],
    "saturates": [
        (of_scaling("amax", layers(5, saturated=50)),),
        (constants("cscale:4", CLIPPED, weight=4, input=4),),
        (constants("cscale:weight=4,input=3,grad_output=9", CLIPPED, weight=4, input=3, grad_output=9),),
    ],
    "flushes": [
        (layers(5, flushed=70),),
        (constants("cscale:4", FLUSHED, weight=4, input=4, grad_output=4),),
    ],
    "zero_gradients": [
        ([*layers(2, **GRADIENT), *(row(step=step, layer=2, **GRADIENT | {"amax": 0.0}) for step in range(4))],),
        ([*layers(3), *layers(2, **GRADIENT)], [fp8_note()]),
    ],
    "idle_weight": [(weights(lambda layer, step: 20.0 + (step / 97 if layer else 1 / 3)),)],
    "not_fp8": [
        (layers(2), [note(fp8=[DOWN.format(0)], kept={DOWN.format(1): "skip pattern 'x'"})]),
        (layers(2), [note(fp8=[DOWN.format(0)], kept={DOWN.format(1): ""})]),
    ],
    "frozen_weight": [(layers(3), [fp8_note(frozen=[DOWN.format(0)])])],
    "margin_wasted": [
        (of_scaling("amax:margin=7", steps(4, scale_bias=-3)),),
        (constants("cscale:-8", steps(4), weight=-8, input=-8, grad_output=-8),),
        (constants("cscale:weight=-8,input=3", steps(4), weight=-8, input=3),),
        (constants("cscale:weight=-8,input=3,grad_output=9", steps(4), weight=-8, input=3, grad_output=9),),
        (constants("cscale:weight=4,input=3,grad_output=-20", steps(4), weight=4, input=3, grad_output=-20),),
    ],
}
EACH = [(rule, number) for rule, cases in CASES.items() for number in range(len(cases))]


def findings(rule, number):
    rows, *more = CASES[rule][number]
    return [each for each in found(*rows, **dict(zip(("notes", "metrics"), more, strict=False))) if each.rule == rule]


@pytest.mark.parametrize(("rule", "number"), EACH)
def test_a_rule_finds_what_it_is_for(rule, number):
    assert findings(rule, number)


def test_there_is_no_rule_that_no_run_can_meet():
    assert set(CASES) == set(RULES)


COMMANDS = typer.main.get_command(app).commands
OPTIONS = {option for command in COMMANDS.values() for each in command.params for option in each.opts}


@pytest.mark.parametrize(("rule", "number"), EACH)
def test_what_a_remedy_names_is_there(rule, number, tmp_path):
    for each in findings(rule, number):
        for text in re.findall(r"--scaling ([^\s;]+)", each.remedy):
            assert isinstance(parse_scaling(text.rstrip(",")), Recipe)
        for line in re.findall(r"skip = \[.*\]", each.remedy):
            (tmp_path / "recipe.toml").write_text(f'scaling = "amax"\n{line}\n')
            assert read_recipe(tmp_path / "recipe.toml").skip == (each.module,)
        assert set(re.findall(r"--[a-z-]+", each.remedy)) <= OPTIONS
        assert set(re.findall(r"octoscale ([a-z]+)", each.remedy)) <= set(COMMANDS)
        assert all(hasattr(octoscale, name) for name in re.findall(r"octoscale\.([a-z_]+)", each.remedy))


@pytest.mark.parametrize("rule", RULES)
def test_a_run_that_goes_on_takes_no_other_settings(rule):
    """--resume refuses them: a checkpoint is the MODEL of a new run."""
    for number in range(len(CASES[rule])):
        for each in findings(rule, number):
            assert "go on" not in each.remedy
            assert ("checkpoint-N" in each.remedy) == ("checkpoint" in each.remedy)


def test_a_constant_that_wastes_is_told_as_a_whole_scaling():
    """20 * 2**4 = 320 of 448 in e4m3fn, 20 * 2**11 of 57344 in e5m2; -8 leaves 12 free of the weights, and so on."""
    told = [
        [each.remedy for each in findings("margin_wasted", number)] for number in range(len(CASES["margin_wasted"]))
    ]
    assert told == [
        ["--scaling amax"],
        ["--scaling cscale:4"],
        ["--scaling cscale:weight=4,input=3"],
        ["--scaling cscale:weight=4,input=3,grad_output=9"],
        ["--scaling cscale:weight=4,input=3,grad_output=11"],
    ]


def test_the_formats_of_a_run_are_part_of_its_scaling():
    """240 is the largest value of e4m3fnuz: 20 asks for 3."""
    rows = [each | {"format": "e4m3fnuz"} for each in constants("cscale:-8,formats=fnuz", steps(4), input=-8)]
    (each,) = found(*rows)
    assert each.remedy == "--scaling cscale:3,formats=fnuz"


NAMES = ["model.layers.{}.a", 'quote".{}.\\', "del.\x7f.{}", "\u202e.{}", "line\n.{}"]


@pytest.mark.parametrize("name", NAMES)
def test_several_layers_are_kept_out_by_one_line(name, tmp_path):
    """Weight and input of three layers: a recipe file has the key skip once."""
    rows = [
        row(layer=layer, role=role, scaling="amax", saturated=50) | {"module": name.format(layer)}
        for role in ("input", "weight")
        for layer in (range(3) if role == "input" else [0])
    ]
    text = told(examine(write_run(tmp_path / "run", rows).path))
    (line,) = re.findall(r"skip = \[.*\]", text)
    (tmp_path / "recipe.toml").write_text(f'scaling = "amax"\n{line}\n')
    if name.isprintable():
        assert read_recipe(tmp_path / "recipe.toml").skip == tuple(name.format(layer) for layer in range(3))
    assert line.count(",") == 2
