"""What a recipe says of each role, and the texts that mean a recipe. Oracles: the docstrings, the paper, DESIGN.md."""

import dataclasses
import re

import pytest

from octoscale.numerics.formats import ROLES
from octoscale.numerics.recipe import PRECISIONS, Operand, Recipe, parse_scaling
from octoscale.numerics.scaling import Amax, Constant, Delayed

OCP = {"weight": "e4m3fn", "input": "e4m3fn", "grad_output": "e5m2"}
FNUZ = {"weight": "e4m3fnuz", "input": "e4m3fnuz", "grad_output": "e5m2fnuz"}
FORMS = (
    "amax, amax:margin=3, amax:row, amax:block, amax:mx,round=up, weight=amax:block,input=amax:row, cscale:-1, "
    "cscale:weight=3,input=-1, delayed:history=16, bf16, fp16, fp32"
)
ROW, BLOCK, MX = (Amax(granularity=name) for name in ("row", "block", "mx"))


def formats_of(recipe: Recipe) -> dict[str, str]:
    return {role: recipe.operand(role).format for role in ROLES}


def rules_of(recipe: Recipe) -> set:
    return {recipe.operand(role).rule for role in ROLES}


@pytest.mark.parametrize(
    ("recipe", "formats", "rule"),
    [
        (Recipe.amax(), OCP, Amax()),
        (Recipe.amax(margin=3), OCP, Amax(margin=3)),
        (Recipe.amax(formats="fnuz"), FNUZ, Amax()),
        (Recipe.cscale(-1), OCP, Constant(-1)),
        (Recipe.cscale(2, formats="fnuz"), FNUZ, Constant(2)),
        (Recipe.delayed(), OCP, Delayed(history=16)),
        (Recipe.delayed(history=4, margin=1, formats="fnuz"), FNUZ, Delayed(history=4, margin=1)),
        (Recipe.paper_training(), FNUZ, Amax(margin=3)),
        (Recipe.paper_inference(), FNUZ, Amax()),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_preset_gives_every_role_its_format_and_the_rule(recipe, formats, rule):
    assert formats_of(recipe) == formats
    assert rules_of(recipe) == {rule}


def test_an_operand_takes_only_a_known_format():
    with pytest.raises(ValueError, match=re.escape("unknown format 'fp8': the formats are e4m3fn, e5m2")):
        Operand(format="fp8", rule=Amax())


def test_an_operand_reads_as_format_and_rule():
    assert str(Operand(format="e5m2", rule=Constant(8))) == "e5m2 cscale:8"


@pytest.mark.parametrize("make", [Recipe.amax, Recipe.delayed, lambda **kwargs: Recipe.cscale(0, **kwargs)])
def test_an_unknown_format_set_is_named_with_the_known_ones(make):
    with pytest.raises(ValueError, match=re.escape("'amd': the format sets are ocp, fnuz")):
        make(formats="amd")


def test_a_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe.amax().weight = Operand(format="e5m2", rule=Amax())


def test_equal_recipes_are_equal_and_hash_alike():
    assert Recipe.amax(skip=["a"]) == Recipe.amax(skip=("a",))
    assert len({Recipe.amax(skip=["a"]), Recipe.amax(skip=("a",)), Recipe.amax()}) == 2


# skip


def test_skip_is_kept_as_a_tuple_in_order():
    assert Recipe.amax(skip=iter(["b", "a"])).skip == ("b", "a")
    assert Recipe.cscale(0, skip=["down_proj"]).skip == ("down_proj",)
    assert Recipe.delayed(skip=["down_proj"]).skip == ("down_proj",)
    assert Recipe.amax().skip == ()


@pytest.mark.parametrize(
    "make",
    [
        lambda skip: Recipe.amax(skip=skip),
        lambda skip: Recipe.cscale(0, skip=skip),
        lambda skip: Recipe.delayed(skip=skip),
        lambda skip: parse_scaling("amax", skip=skip),
        lambda skip: dataclasses.replace(Recipe.amax(), skip=skip),
    ],
    ids=["amax", "cscale", "delayed", "parse", "replace"],
)
def test_skip_as_one_text_is_an_error_with_the_remedy(make):
    with pytest.raises(TypeError, match=re.escape("not the text 'mlp': write skip=['mlp']")):
        make("mlp")


# override


@pytest.mark.parametrize("role", ROLES)
def test_override_changes_one_role_and_says_so(role):
    operand, before = Operand(format="e5m2", rule=Constant(8)), Recipe.amax(skip=["a"])
    after = before.override(**{role: operand})
    assert after.operand(role) == operand
    assert all(after.operand(other) == before.operand(other) for other in ROLES if other != role)
    assert after.name == f"amax [{role} e5m2 cscale:8]"
    assert after.skip == ("a",)


def test_override_leaves_the_original_as_it_was():
    recipe = Recipe.amax()
    recipe.override(weight=Operand(format="e5m2", rule=Amax()))
    assert recipe == Recipe.amax()


def test_override_of_nothing_is_the_same_recipe():
    assert Recipe.amax().override() == Recipe.amax()


# parse_scaling


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("amax", Recipe.amax()),
        ("amax:margin=3", Recipe.amax(margin=3)),
        ("amax:margin=-1", Recipe.amax(margin=-1)),
        ("amax:formats=fnuz", Recipe.amax(formats="fnuz")),
        ("amax:margin=3,formats=fnuz", Recipe.amax(formats="fnuz", margin=3)),
        ("amax:formats=fnuz,margin=3", Recipe.amax(formats="fnuz", margin=3)),
        ("cscale:-1", Recipe.cscale(-1)),
        ("cscale:0", Recipe.cscale(0)),
        ("cscale:126", Recipe.cscale(126)),
        ("cscale:2,formats=fnuz", Recipe.cscale(2, formats="fnuz")),
        ("cscale:weight=3,input=-1", Recipe.cscale_by_role(weight=3, input=-1)),
        ("cscale:input=-1,weight=3", Recipe.cscale_by_role(weight=3, input=-1)),
        ("cscale:weight=3,input=-1,grad_output=8", Recipe.cscale_by_role(weight=3, input=-1, grad_output=8)),
        ("cscale:weight=0,input=0,formats=fnuz", Recipe.cscale_by_role(weight=0, input=0, formats="fnuz")),
        ("delayed", Recipe.delayed()),
        ("delayed:history=16", Recipe.delayed(history=16)),
        ("delayed:margin=1", Recipe.delayed(margin=1)),
        ("delayed:history=4,margin=1,formats=fnuz", Recipe.delayed(history=4, margin=1, formats="fnuz")),
        ("amax:tensor", Recipe.amax()),
        ("amax:row", Recipe.amax(granularity="row")),
        ("amax:block,margin=1", Recipe.amax(granularity="block", margin=1)),
        ("amax:mx", Recipe.amax(granularity="mx", round="down")),
        ("amax:mx,round=up,formats=fnuz", Recipe.amax(granularity="mx", round="up", formats="fnuz")),
        ("weight=amax:row,input=amax:row", Recipe.amax(granularity="row")),
        ("weight=amax:block,input=amax:row", Recipe.by_role(weight=BLOCK, input=ROW)),
        ("input=amax:row,weight=amax:block", Recipe.by_role(weight=BLOCK, input=ROW)),
        ("weight=amax,input=amax:mx,grad_output=amax", Recipe.by_role(weight=Amax(), input=MX, grad_output=Amax())),
        (
            "weight=amax:mx,round=up,margin=1,formats=fnuz,input=delayed:history=4",
            Recipe.by_role(
                weight=Amax(granularity="mx", round="up", margin=1), input=Delayed(history=4), formats="fnuz"
            ),
        ),
        ("weight=cscale:3,input=cscale:-1", Recipe.cscale_by_role(weight=3, input=-1)),
    ],
)
def test_each_text_means_its_recipe(text, recipe):
    assert parse_scaling(text) == recipe


@pytest.mark.parametrize("text", ["bf16", "fp16", "fp32"])
def test_a_precision_is_returned_as_it_is(text):
    assert parse_scaling(text, formats="fnuz", skip=["a"]) == text


def test_precisions_are_the_dtypes_that_torch_names():
    assert PRECISIONS == {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@pytest.mark.parametrize("text", ["amax", "cscale:-1", "cscale:weight=1,input=2", "delayed:history=16"])
def test_the_arguments_are_defaults_for_formats_and_skip(text):
    recipe = parse_scaling(text, formats="fnuz", skip=["a"])
    assert formats_of(recipe) == FNUZ
    assert recipe.skip == ("a",)


@pytest.mark.parametrize("text", ["amax:formats=ocp", "cscale:-1,formats=ocp", "delayed:formats=ocp"])
def test_formats_in_the_text_win_over_the_argument(text):
    assert formats_of(parse_scaling(text, formats="fnuz")) == OCP


@pytest.mark.parametrize("formats", ["ocp", "fnuz"])
def test_two_recipes_of_one_run_have_two_names(formats):
    """One run has one `formats` argument; its records tell scalings apart by their names."""
    recipes = [parse_scaling(text, formats=formats) for text in ("amax", "amax:formats=ocp", "amax:formats=fnuz")]
    assert len({recipe.name for recipe in recipes}) == len({(recipe.name, recipe.weight.format) for recipe in recipes})


@pytest.mark.parametrize("formats", ["ocp", "fnuz"])
@pytest.mark.parametrize(
    "make",
    [
        Recipe.amax,
        lambda **kwargs: Recipe.amax(margin=3, **kwargs),
        lambda **kwargs: Recipe.cscale(-1, **kwargs),
        lambda **kwargs: Recipe.cscale_by_role(weight=3, input=-1, **kwargs),
        lambda **kwargs: Recipe.cscale_by_role(weight=-3, input=1, grad_output=9, **kwargs),
        Recipe.delayed,
        lambda **kwargs: Recipe.delayed(history=4, margin=2, **kwargs),
        lambda **kwargs: Recipe.amax(granularity="mx", margin=2, round="up", **kwargs),
        lambda **kwargs: Recipe.by_role(weight=BLOCK, input=Amax(), **kwargs),
        lambda **kwargs: Recipe.by_role(weight=Amax(), input=Delayed(), grad_output=MX, **kwargs),
    ],
    ids=[
        *("amax", "amax:margin=3", "cscale", "by role", "by role with all", "delayed", "delayed with all"),
        *("mx with all", "granularity by role", "rule by role"),
    ],
)
def test_the_name_of_a_recipe_means_the_recipe(make, formats):
    recipe = make(formats=formats)
    assert parse_scaling(recipe.name) == recipe


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AMAX",
        " amax",
        "e4m3fn",
        "fp8",
        "bf16:margin=1",
        "amax:3",
        "amax:history=3",
        "amax:bias=3",
        "amax:margin",
        "amax:=3",
        "cscale",
        "cscale:",
        "cscale:1,2",
        "cscale:1,margin=2",
        "cscale:1,weight=2",
        "cscale:bias=1,weight=2,input=3",
        "cscale:weight=1,input=2,output=3",
        "cscale:weight=1,input=2,margin=3",
        "amax:weight=1,input=2",
        "delayed:16",
        "delayed:bias=1",
        "__init__",
        "override:margin=1",
        "amax:column",
        "amax:margin=1,row",
        "amax:row,block",
        "weight=amax",
        "weight=amax,input=",
        "weight=bf16,input=amax",
        "weight=amax,weight=amax,input=amax",
        "weight=amax,input=amax,formats=ocp,formats=fnuz",
    ],
)
def test_an_unknown_scaling_is_named_with_the_known_forms(text):
    with pytest.raises(ValueError, match=re.escape(f"unknown scaling {text!r}: write one of {FORMS}")):
        parse_scaling(text)


@pytest.mark.parametrize(
    "text",
    [
        "amax:margin=",
        "amax:margin=x",
        "amax:margin=1.5",
        "cscale:x",
        "cscale:1e1",
        "cscale:--1",
        "cscale:weight=x,input=1",
        "delayed:history=x",
    ],
)
def test_a_parameter_that_is_no_whole_number_is_named_with_the_known_forms(text):
    with pytest.raises(ValueError, match=f"{re.escape(repr(text))}.*{re.escape(FORMS)}"):
        parse_scaling(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("cscale:200", "200 is outside -126..126"),
        ("cscale:-127", "-127 is outside -126..126"),
        ("cscale:weight=127,input=0", "127 is outside -126..126"),
        ("cscale:weight=0,input=0,grad_output=-127", "-127 is outside -126..126"),
        ("delayed:history=0", "at least 1 step, not 0"),
        ("amax:formats=amd", "'amd': the format sets are ocp, fnuz"),
    ],
)
def test_a_value_out_of_its_range_is_named_with_the_rule(text, what):
    with pytest.raises(ValueError, match=re.escape(what)):
        parse_scaling(text)


@pytest.mark.parametrize(
    "text",
    [
        "amax:margin=1,margin=2",
        "cscale:weight=1,weight=2,input=3",
        "cscale:5,bias=3",
        "amax:formats=",
        "amax:formats=ocp,formats=fnuz",
    ],
)
def test_a_setting_is_never_dropped_silently(text):
    with pytest.raises(ValueError, match=re.escape(text)):
        parse_scaling(text)


# granularity


@pytest.mark.parametrize("granularity", ["row", "block", "mx"])
def test_a_rule_that_serves_whole_tensors_takes_no_granularity(granularity):
    with pytest.raises(ValueError, match=f"cscale:{granularity}.*a constant is the same.*write amax:{granularity}"):
        parse_scaling(f"cscale:{granularity}")
    with pytest.raises(ValueError, match=f"delayed:{granularity}.*a history is of one amax.*write amax:{granularity}"):
        parse_scaling(f"weight=amax,input=delayed:{granularity},history=4")


@pytest.mark.parametrize("text", ["amax:round=up", "amax:row,round=up", "amax:mx,round=even"])
def test_a_rounding_is_one_of_two_and_of_mx(text):
    with pytest.raises(ValueError, match=r"round=(up|even): it is down or up, and for amax:mx alone"):
        parse_scaling(text)


def test_an_unknown_rule_of_a_role_is_named():
    with pytest.raises(ValueError, match=re.escape(f"unknown scaling 'amox': write one of {FORMS}")):
        parse_scaling("weight=amax,input=amox")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("weight=amax:block,input=amax:row", ROW),
        ("weight=amax:block,input=amax:row,margin=2", Amax(granularity="row", margin=2)),
        ("weight=amax:block,input=cscale:1", Amax()),
        ("weight=cscale:1,input=amax:mx", MX),
        ("weight=amax,input=delayed", Delayed()),
    ],
)
def test_gradients_that_are_not_named_are_scaled_as_inputs(text, rule):
    assert parse_scaling(text).grad_output.rule == rule


@pytest.mark.parametrize(
    ("text", "whole"),
    [("amax", True), ("cscale:1", True), ("delayed", True), ("amax:row", False), ("weight=amax,input=amax:mx", False)],
)
def test_a_recipe_knows_whether_each_tensor_has_one_scale(text, whole):
    assert parse_scaling(text).is_whole == whole


def test_imitated_sums_are_of_one_scale_a_tensor():
    with pytest.raises(ValueError, match="accumulate=hopper imitates products of one scale a tensor: write amax"):
        parse_scaling("amax:row,accumulate=hopper")


# constants by role


@pytest.mark.parametrize(
    ("text", "fast", "passes"),
    [
        ("amax", "forward", ["forward"]),
        ("amax:fast=forward", "forward", ["forward"]),
        ("amax:margin=3,fast=none", "none", []),
        ("cscale:-1,fast=both", "both", ["forward", "backward"]),
        ("delayed:history=4,formats=fnuz,fast=backward", "backward", ["backward"]),
    ],
)
def test_a_text_says_which_sums_may_be_fast(text, fast, passes):
    recipe = parse_scaling(text)
    assert recipe.fast == fast
    assert [name for name in ("forward", "backward") if recipe.is_fast(name)] == passes
    assert parse_scaling(recipe.name) == recipe


@pytest.mark.parametrize(
    "make", [lambda: parse_scaling("amax:fast=maybe"), lambda: dataclasses.replace(Recipe.amax(), fast="maybe")]
)
def test_an_unknown_word_for_fast_is_named_with_the_known_ones(make):
    with pytest.raises(ValueError, match="unknown fast=maybe: one of none, forward, backward, both"):
        make()


def test_constants_by_role():
    recipe = parse_scaling("cscale:weight=3,input=-1,grad_output=8")
    assert [recipe.operand(role).rule for role in ROLES] == [Constant(3), Constant(-1), Constant(8)]
    assert formats_of(recipe) == OCP


def test_gradients_without_a_constant_have_each_their_own_scale():
    assert parse_scaling("cscale:weight=3,input=-1").grad_output.rule == Amax()


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("cscale:weight=3", "input"),
        ("cscale:input=3", "weight"),
        ("cscale:grad_output=3", "weight"),
        ("cscale:weight=3,grad_output=1", "input"),
    ],
)
def test_a_role_that_is_not_named_is_refused(text, role):
    with pytest.raises(ValueError, match=f"unknown scaling '{text}': .*; here {role} has no constant"):
        parse_scaling(text)
