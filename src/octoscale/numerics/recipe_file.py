"""A recipe as a file, in TOML: what the options --scaling, --formats and --skip would say, kept with its reasons.

    # Written by octoscale advise for smollm2-135m.
    scaling = "amax"
    formats = "ocp"
    skip = [
        "model.layers.28.mlp.down_proj",  # costs 0.0021 of the loss
    ]

    recipe = read_recipe("recipe.toml")
    write_recipe("recipe.toml", recipe, heading=["Why"], notes={"model.layers.28.mlp.down_proj": "costs 0.0021"})

scaling is a text as on the command line, and must be there. formats is ocp unless it is said; skip holds patterns or
names of modules. Any other key is an error: what a file says is never passed over.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from octoscale.numerics.formats import PRECISIONS, get_format_set
from octoscale.numerics.recipe import Recipe, parse_scaling, with_word
from octoscale.system.errors import UserError
from octoscale.system.printable import first_line, printable
from octoscale.system.whole_file import replacing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

_KEYS = ("scaling", "formats", "skip")


def read_recipe(path: Path | str) -> Recipe:
    """The recipe that a file says.

    FileNotFoundError if there is none; UserError, naming file and key, for text that is no TOML, a key that is unknown
    or missing, and a value of another type or meaning.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such recipe file: {path}")
    try:
        content = tomllib.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as error:  # of UTF-8, and of TOML
        raise UserError(f"{path} is no TOML: {first_line(error)}") from error
    unknown = sorted(content.keys() - set(_KEYS))
    if unknown:
        raise UserError(f"{path}: unknown key {unknown[0]!r}; a recipe has {', '.join(_KEYS)}")
    if "scaling" not in content:
        raise UserError(f'{path}: the key scaling is missing, as in scaling = "amax"')
    scaling, skip = _text(path, content, "scaling"), _texts(path, content, "skip")
    if "formats" in content and "formats=" in scaling:
        raise UserError(f"{path}: formats are said twice, in scaling and in formats")
    return _recipe(path, scaling, _text(path, content, "formats", "ocp"), skip)


def write_recipe(
    path: Path | str, recipe: Recipe, *, heading: Sequence[str] = (), notes: Mapping[str, str] | None = None
) -> None:
    """Replace a file by this recipe. heading: lines of comment on top. notes: a comment on each pattern of `skip`.

    UserError for a recipe that has no text as on the command line, because its roles differ.
    """
    if not _has_text(recipe):
        raise UserError(f"the recipe {recipe.name} cannot be written: a file says one scaling for all roles")
    lines = [_comment(line) for line in heading]
    lines.append(f"scaling = {quoted(recipe.name)}")
    notes = notes or {}
    entries = [_line(entry, notes) for entry in recipe.skip]
    lines += ["skip = [", *entries, "]"] if entries else ["skip = []"]
    with replacing(Path(path)) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def quoted(text: str) -> str:
    """A basic string of TOML: escaped as in JSON, and DEL as well."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _has_text(recipe: Recipe) -> bool:
    try:
        return parse_scaling(recipe.name, skip=recipe.skip) == recipe
    except UserError:
        return False


def _recipe(path: Path, scaling: str, formats: str, skip: Sequence[str]) -> Recipe:
    """The recipe under its whole name, its formats included."""
    _named(path, "formats", lambda: get_format_set(formats))
    recipe = _named(path, "scaling", lambda: parse_scaling(_with_formats(scaling, formats), skip=skip))
    if not isinstance(recipe, Recipe):
        raise UserError(f"{path}: scaling: {scaling} is no FP8, and a recipe is")
    return recipe


def _named(path: Path, key: str, read: Callable[[], T]) -> T:
    """What `read` gives; its UserError with the file and the key."""
    try:
        return read()
    except UserError as error:
        raise UserError(f"{path}: {key}: {error}") from error


def _with_formats(scaling: str, formats: str) -> str:
    if formats == "ocp" or scaling in PRECISIONS:
        return scaling
    return with_word(scaling, f"formats={formats}")


def _text(path: Path, content: Mapping[str, Any], key: str, default: str = "") -> str:
    value = content.get(key, default)
    if not isinstance(value, str):
        raise UserError(f"{path}: {key} is a text in quotes, not {_shown(value)}")
    return value


def _texts(path: Path, content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = content.get(key, [])
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise UserError(f'{path}: {key} is a list of texts, as in {key} = ["down_proj"], not {_shown(value)}')
    return tuple(value)


def _shown(value: object) -> str:
    return f"{value!r:.60}"


def _line(entry: str, notes: Mapping[str, str]) -> str:
    note = f"  {_comment(notes[entry])}" if entry in notes else ""
    return f"    {quoted(entry)},{note}"


def _comment(text: str) -> str:
    return f"# {printable(' '.join(text.split()))}".rstrip()
