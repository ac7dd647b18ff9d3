"""The safetensors files of a checkpoint: which they are, whether all of the model is there, and what becomes of it.

shards = find_shards(folder)
check_complete(model, shards)
weights_in(report_for_files(report, model, shards), model, shards)      name of a tensor -> its module
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from octoscale.checkpoints.headers import read_entries
from octoscale.checkpoints.names import parameters_of
from octoscale.conversion.convert import ConversionReport
from octoscale.system.errors import UserError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def find_shards(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: the single one, or those that an index names, in transformers' order.

    FileNotFoundError if one is missing; ValueError for a bad index, and for what is no regular file.
    """
    if (folder / SINGLE).exists():
        return [_regular(folder / SINGLE)]
    if not (folder / INDEX).exists():
        raise FileNotFoundError(f"{folder} holds no {SINGLE} and no {INDEX}")
    try:
        index = json.loads(_regular(folder / INDEX).read_text(encoding="utf-8"))
        names = sorted(set(index["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{folder / INDEX} is no index of shards: {type(error).__name__}: {error}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{folder / INDEX} names {name!r}: a shard is a .safetensors file in the same folder")
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder / INDEX} names {name}, which is missing")
    return [_regular(folder / name) for name in names]


def _regular(path: Path) -> Path:
    """ValueError for a pipe, a socket, a device or a folder: to read one could take forever."""
    if not path.is_file():
        raise UserError(f"{path} is no regular file")
    return path


def check_complete(model: Any, shards: list[Path]) -> None:
    """ValueError naming the tensors that the files lack, of those that a model of transformers cannot do without."""
    targets = parameters_of(model, _names_in(shards)).values()
    found = {parameter for target in targets for parameter in target.parameters}
    tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
    found |= {name for pair in tied.items() if set(pair) & found for name in pair}
    ignored = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_missing or ()]
    missing = [
        name
        for name in model.state_dict()
        if name not in found and not any(pattern.search(name) for pattern in ignored)
    ]
    if missing:
        raise UserError(missing_text(missing, f"the checkpoint {shards[0].parent}"))


def check_shapes(model: Any, shards: list[Path]) -> None:
    """ValueError naming a tensor of another shape than in this model, which was made without weights, or of integers.

    Integers in the place of a weight are codes of a quantization that config.json does not speak of. As to shapes,
    transformers finds that too, after it has made room for a tensor as the config wants it: with one digit too many
    there, that is more than a machine has.
    """
    own = model.state_dict(keep_vars=True)
    entries = {name: (entry, shard) for shard in shards for name, entry in read_entries(shard).items()}
    for name, target in parameters_of(model, entries).items():
        (entry, shard), parameter = entries[name], own[target.parameter]
        if entry.dtype.startswith(("I", "U")) and parameter.is_floating_point():
            raise UserError(f"{name} is {entry.dtype} in {shard}, and config.json does not say how it is scaled")
        if not target.merged and entry.shape != tuple(parameter.shape):
            raise UserError(
                f"{name} has shape {list(entry.shape)} in {shard}, and by config.json it should have "
                f"{list(parameter.shape)}: they are of different models"
            )


def surplus_in(model: Any, shards: list[Path]) -> list[str]:
    """The tensors of the files that are none of the model's, and that its class does not know of either."""
    names = _names_in(shards)
    used = parameters_of(model, names)
    known = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_unexpected or ()]
    return sorted(name for name in names if name not in used and not any(pattern.search(name) for pattern in known))


def missing_text(names: Sequence[str], where: str = "the checkpoint") -> str:
    """What to say of tensors that are not there."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{where} lacks {len(names)} of the model's tensors: {', '.join(sorted(names)[:3])}{more}"


def report_for_files(report: ConversionReport, model: Any, shards: list[Path]) -> ConversionReport:
    """The report as the files allow it: a weight that they hold in parts, or within another, stays as it is."""
    targets = parameters_of(model, _names_in(shards)).values()
    return without_merged(report, {name for target in targets if target.merged for name in target.parameters})


def without_merged(report: ConversionReport, parameters: Collection[str]) -> ConversionReport:
    """The report, with these parameters kept in high precision: codes with scales of their own cannot be merged."""
    rows = [
        replace(row, converted=False, reason="its weight has another form in the files")
        if f"{row.module}.weight" in parameters
        else row
        for row in report.modules
    ]
    return replace(report, modules=tuple(rows))


def _names_in(shards: list[Path]) -> list[str]:
    return [name for shard in shards for name in read_entries(shard)]


def weights_in(report: ConversionReport, model: Any, shards: list[Path]) -> dict[str, str]:
    """Name of a tensor in the files -> its module."""
    names = {target.parameter: name for name, target in parameters_of(model, _names_in(shards)).items()}
    found: dict[str, str] = {}
    for row in report.converted:
        full = f"{row.module}.weight"
        if full not in names:
            raise UserError(f"the checkpoint has no tensor {full}: it is of another model, or was fused when saved")
        found[names[full]] = row.module
    return found
