"""Files of a checkpoint folder, which come from anywhere: what is wrong with one is a line that names file and key.

    check_folder(folder)                        only regular files: to open a pipe could take forever
    config = read_config(folder)                transformers' config; no code of the folder is ever run
    raise UserError(explain_config(folder, error, attempt))

Transformers finds most faults itself, in words that name no file. So when it fails, values are left out of the file one
by one: the one without which all is well is to blame. That costs time only where something is wrong.
"""

import json
import re
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from octoscale.system.errors import UserError

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"

#: Files that transformers may open, by the end of their names.
_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken", ".gguf", ".bin")
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

#: Counts of modules that are built one by one: beyond this, a number is no model but a mistake.
_COUNT = re.compile(r"(num_|n_)\w*(layers?|blocks?|experts?)|(encoder|decoder)_layers|n_?layers?|depths?")
_MOST_MODULES = 4096

_LONGEST_VALUE = 60


def check_folder(folder: Path) -> None:
    """ValueError for a file that transformers may open and that is a pipe, a socket or a device."""
    templates = folder / "additional_chat_templates"
    for path in [*folder.iterdir(), *(templates.iterdir() if templates.is_dir() else ())]:
        if path.suffix in _SUFFIXES and path.exists():
            mode = path.stat().st_mode
            for is_kind, kind in _KINDS:
                if is_kind(mode):
                    raise UserError(f"{path} is {kind}: only regular files are read")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds. ValueError for anything else; OSError if it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {_in_one_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {_shown(content)}: it should hold an object, {{...}}")
    return content


def read_config(folder: Path) -> Any:
    """The transformers config of a checkpoint folder. ValueError, naming the key, for one that makes none.

    Code that the folder brings is never run: where transformers has no class of its own for it, it is refused.
    """
    content = read_object(folder / CONFIG)
    check_runs_no_code(folder, content)
    _check_counts(folder / CONFIG, content)
    try:
        return _config(folder)
    except Exception as error:
        raise UserError(explain_config(folder, error)) from error


def check_runs_no_code(folder: Path, content: Mapping[str, Any]) -> None:
    """ValueError for a config that only code of its own could read, or that names code of the hub."""
    from transformers import CONFIG_MAPPING, __version__

    path, name = folder / CONFIG, content.get("model_type")
    if not isinstance(name, str) or name not in CONFIG_MAPPING:
        if content.get("auto_map"):
            raise UserError(f"{path}: model_type {_shown(name)} needs code of the folder's own, which is never run")
        raise UserError(f"{path}: model_type is {_shown(name)}: transformers {__version__} does not know it")
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        if "/" in str(content.get(key, "")):
            raise UserError(f"{path}: {key} is {_shown(content[key])}: code of the hub is never run")


def explain_config(folder: Path, error: BaseException, attempt: Callable[[Any], object] | None = None) -> str:
    """Why transformers fails with the config of `folder`, with the key that is to blame if it is one.

    attempt: what is done with the config, and fails; without it, reading it fails.
    """
    path = folder / CONFIG

    def works(content: Mapping[str, Any]) -> bool:
        with tempfile.TemporaryDirectory() as changed:
            (Path(changed) / CONFIG).write_text(json.dumps(content), encoding="utf-8")
            try:
                config = _config(Path(changed))
                if attempt is not None:
                    attempt(config)
            except Exception:  # noqa: BLE001
                return False
        return True

    content = read_object(path)
    return explain(path, content, blamed(content, works, hint=str(error)), error)


def explain(path: Path, content: Mapping[str, Any], way: tuple[str, ...], error: BaseException) -> str:
    """A line for `error`, which the value at `way` in the file `path` led to, or, where that is empty, all of it."""
    reason = _in_one_line(error)
    if not way:
        return f"{path}: {reason}"
    value: Any = content
    for key in way:
        value = value[key]
    return f"{path}: {'.'.join(way)} is {_shown(value)}: {reason}"


def blamed(content: Mapping[str, Any], works: Callable[[Mapping[str, Any]], bool], hint: str = "") -> tuple[str, ...]:
    """The way to the value without which `content` works; empty if there is none. Keys that `hint` names come first."""
    for key in sorted(content, key=lambda key: f"'{key}'" not in hint):
        if works({other: value for other, value in content.items() if other != key}):
            inner = content[key]
            if not isinstance(inner, dict):
                return (key,)
            return (key, *blamed(inner, lambda changed, key=key: works({**content, key: changed}), hint))  # type: ignore[misc]
    return ()


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def _check_counts(path: Path, content: Mapping[str, Any]) -> None:
    for key, value in content.items():
        if isinstance(value, dict):
            _check_counts(path, value)
        elif _COUNT.fullmatch(key) and isinstance(value, int) and not 0 <= value <= _MOST_MODULES:
            raise UserError(f"{path}: {key} is {value}: from 0 to {_MOST_MODULES} can be built")


def _shown(value: Any) -> str:
    """A value of JSON, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _in_one_line(error: BaseException) -> str:
    """What an error says; its kind where the words alone would be none."""
    words = " ".join(str(error).split()) or "no reason given"
    words = re.sub(r"^Validation error for field '\w+': ", "", words)
    own = isinstance(error, ValueError) or words.startswith(("TypeError:", "ValueError:"))
    return words if own else f"{type(error).__name__}: {words}"
