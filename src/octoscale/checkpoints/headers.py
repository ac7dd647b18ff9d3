"""Which weights a checkpoint holds in FP8, and where their scales are: read from the headers of its files.

    found = find_stored(files, {"model.layers.0.mlp.up_proj": (256, 64), ...}, targets_of)

Files come from anywhere: whatever does not fit together is a ValueError that names the tensor. Pickles are never read.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from octoscale.checkpoints.names import Target
from octoscale.checkpoints.writer import Entry
from octoscale.layers.layouts import LAYOUTS, Layout
from octoscale.system.errors import UserError

#: From names of tensors to what they become in a model.
Targets = Callable[[Iterable[str]], Mapping[str, Target]]

_CODES = "F8_E4M3"
_SCALE_DTYPES = ("F32", "BF16", "F16")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A weight in FP8: its name in the files, the layout that its scales' names follow, their shape, whether its input
    has one too.
    """

    name: str
    layout: Layout
    scale_shape: tuple[int, ...]
    has_input_scale: bool


def find_stored(
    files: Sequence[Path], modules: Mapping[str, tuple[int, ...]], targets_of: Targets
) -> dict[str, Stored]:
    """Module -> how its weight is stored, for those of `modules`, name -> shape of weight, that are in FP8.

    targets_of: from names in the files to what they become in the model. What it does not have (the head, for a base
    model; layers beyond the wanted number) is passed over, as transformers does. ValueError for codes without a scale,
    of another format, of a shape that is not the module's, of a parameter that is no linear layer's or that is merged
    from several; for files that are no safetensors.
    """
    entries: dict[str, Entry] = {}
    for path in files:
        entries |= read_entries(path)
    found: dict[str, Stored] = {}
    for name, target in targets_of(entries).items():
        if not entries[name].dtype.startswith("F8"):
            continue
        module, _, leaf = target.parameter.rpartition(".")
        if target.merged:
            raise UserError(f"{name} is in FP8, and becomes a part of {target.parameter}, which has no scale for it")
        if leaf != "weight" or module not in modules:
            raise UserError(f"{name} is in FP8, and the weight of no linear layer of this model")
        found[module] = _stored(name, modules[module], entries)
    return found


def name_of_scale(weight: str, scale: str) -> str:
    """The name of a scale in the files, beside its weight's, which may end otherwise than in .weight."""
    return f"{weight.removesuffix('.weight')}.{scale}"


def is_packed(entry: Entry) -> bool:
    """Whether a tensor is of codes, of 8, 6 or 4 bits, that mean nothing without a scale."""
    return entry.dtype.startswith(("F8", "F6", "F4"))


def read_entries(path: Path) -> dict[str, Entry]:
    """Dtypes and shapes of a file, in the order of its bytes; no tensor is read. ValueError if it is no safetensors."""
    if path.suffix != ".safetensors":
        raise UserError(f"{path.name} is no safetensors file: pickled weights can run code, and are never read here")
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            return {name: Entry(dtype=part.get_dtype(), shape=tuple(part.get_shape())) for name, part in slices.items()}
    except SafetensorError as error:
        raise UserError(f"{path} is damaged, or no safetensors file: {error}") from error


def _stored(name: str, shape: tuple[int, ...], entries: Mapping[str, Entry]) -> Stored:
    """How one weight is stored."""
    entry = entries[name]
    if entry.dtype != _CODES:
        raise UserError(f"{name} is {entry.dtype}: weights are read in {_CODES} only")
    if entry.shape != shape:
        raise UserError(f"{name} has shape {list(entry.shape)}, the model's {list(shape)}")
    layout = next((layout for layout in LAYOUTS.values() if name_of_scale(name, layout.weight_scale) in entries), None)
    if layout is None:
        names = " or ".join(sorted({layout.weight_scale for layout in LAYOUTS.values()}))
        raise UserError(f"{name} is in FP8, and no {names} beside it: its values are not known")
    scale_shape = _check_scale(name_of_scale(name, layout.weight_scale), entries)
    input_scale = name_of_scale(name, layout.input_scale)
    has_input_scale = input_scale in entries
    if has_input_scale and _check_scale(input_scale, entries) != scale_shape:
        raise UserError(f"{name}: the shapes of its two scales differ")
    return Stored(name=name, layout=layout, scale_shape=scale_shape, has_input_scale=has_input_scale)


def _check_scale(name: str, entries: Mapping[str, Entry]) -> tuple[int, ...]:
    """The shape of a scale: () or (1,)."""
    entry = entries[name]
    if entry.shape not in ((), (1,)):
        raise UserError(f"{name} has shape {list(entry.shape)}: one scale for a tensor can be read, no rows or blocks")
    if entry.dtype not in _SCALE_DTYPES:
        raise UserError(f"{name} is {entry.dtype}: a scale is one of {', '.join(_SCALE_DTYPES)}")
    return entry.shape
