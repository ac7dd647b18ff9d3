"""Recipes as files. Oracles: tomllib, the recipes that were written, what the command line says of a bad file."""

import re

import pytest

from octoscale.numerics.recipe import Operand, Recipe, parse_scaling
from octoscale.numerics.recipe_file import read_recipe, tomllib, write_recipe
from octoscale.numerics.scaling import Constant


@pytest.fixture
def file(tmp_path):
    """A recipe file with some content."""

    def write(content):
        path = tmp_path / "recipe.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("content", "recipe"),
    [
        ('scaling = "amax"', Recipe.amax()),
        (
            'scaling = "cscale:-1"\nskip = ["down_proj", "layers.0.*"]',
            Recipe.cscale(-1, skip=["down_proj", "layers.0.*"]),
        ),
        ('# why\nscaling = "amax:margin=3" # so\nformats = "fnuz"\n', Recipe.amax(margin=3, formats="fnuz")),
        ('scaling = "amax:formats=fnuz"', Recipe.amax(formats="fnuz")),
        ('formats = "ocp"\nscaling = "delayed:history=4"\nskip = []', Recipe.delayed(history=4)),
    ],
)
def test_a_file_says_a_recipe(file, content, recipe):
    """Its name is its whole text, with formats that are not the default: `parse_scaling` reads it again."""
    found = read_recipe(file(content))
    assert found == recipe
    assert parse_scaling(found.name, skip=found.skip) == recipe


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe.amax(),
        Recipe.cscale(-3, formats="fnuz", skip=["a.*", 'q"\\\n\x7f\té😀']),
        Recipe.delayed(margin=2, skip=["x"]),
    ],
)
def test_what_is_written_is_read_again(tmp_path, recipe):
    path = tmp_path / "deep" / "recipe.toml"
    write_recipe(path, recipe, heading=["Two words\nof a line", "\x1b[31m"], notes={"x": "a\nnote", "y": "of nothing"})
    assert read_recipe(path) == recipe
    assert list(path.parent.iterdir()) == [path]
    assert tomllib.loads(path.read_text())["scaling"] == recipe.name
    assert path.read_text().startswith("# Two words of a line\n# \\x1b[31m\n")
    assert '    "x",  # a note\n' in path.read_text() or "x" not in recipe.skip


def test_a_recipe_whose_roles_differ_has_no_file(tmp_path):
    recipe = Recipe.amax().override(grad_output=Operand(format="e5m2", rule=Constant(8)))
    with pytest.raises(ValueError, match="cannot be written: a file says one scaling for all roles"):
        write_recipe(tmp_path / "recipe.toml", recipe)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", 'recipe.toml: the key scaling is missing, as in scaling = "amax"'),
        ("scaling = ", "recipe.toml is no TOML: "),
        (b"scaling = '\xff'", "recipe.toml is no TOML: "),
        ('scaling = "amax"\nmargin = 3', "recipe.toml: unknown key 'margin'; a recipe has scaling, formats, skip"),
        ('scaling = "amax"\n[model]\nname = "x"', "recipe.toml: unknown key 'model'"),
        ("scaling = 3", "recipe.toml: scaling is a text in quotes, not 3"),
        ('scaling = ["amax"]', "recipe.toml: scaling is a text in quotes, not ['amax']"),
        ('scaling = "amax"\nformats = 1', "recipe.toml: formats is a text in quotes, not 1"),
        ('scaling = "amax"\nskip = "down_proj"', 'recipe.toml: skip is a list of texts, as in skip = ["down_proj"]'),
        ('scaling = "amax"\nskip = ["a", 3]', "recipe.toml: skip is a list of texts"),
        ('scaling = "amax:4"', "recipe.toml: scaling: unknown scaling 'amax:4'"),
        ('scaling = "cscale:999"', "recipe.toml: scaling: constant scale_bias 999 is outside"),
        ('scaling = "bf16"', "recipe.toml: scaling: bf16 is no FP8, and a recipe is"),
        ('scaling = "amax"\nformats = "amd"', "recipe.toml: formats: unknown format set 'amd'"),
        ('scaling = "amax:formats=fnuz"\nformats = "ocp"', "recipe.toml: formats are said twice"),
        ("x = " + "[" * 5000, "recipe.toml is no TOML"),
    ],
)
def test_a_bad_file_is_one_line_with_file_and_key(file, content, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_recipe(file(content))
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such recipe file"):
        read_recipe(tmp_path)
