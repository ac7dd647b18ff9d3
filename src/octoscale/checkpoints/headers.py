"""Which weights a checkpoint holds in FP8, and where their scales are: read from the headers of its files.

    found = find_stored(files, {"model.layers.0.mlp.up_proj": linear, ...}, targets_of, said)
    found.layers        module -> how its weight is stored
    found.decoded       tensor -> the same, of weights that become a part of a parameter without scales: experts

Files come from anywhere: whatever does not fit together is a ValueError that names the tensor. Pickles are never read.
Of the tensors beside codes only zero points are read, which others write where they are zero, too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from octoscale.checkpoints.names import Target
from octoscale.checkpoints.said import REMEDY, Said
from octoscale.checkpoints.writer import Entry
from octoscale.layers.layouts import LAYOUTS, Layout
from octoscale.layers.origin import is_conv1d
from octoscale.layers.schemes import EVERY_LINEAR, Scheme
from octoscale.system.errors import UserError

#: From names of tensors to what they become in a model.
Targets = Callable[[Iterable[str]], Mapping[str, Target]]

_CODES = "F8_E4M3"
_SCALE_DTYPES = ("F32", "BF16", "F16")
#: What else writers put beside codes, and what it would change: of zero points, none that is zero changes anything.
_ZERO_POINTS = ("weight_zero_point", "input_zero_point")
_UNSERVED = ("pre_quant_scale", "weight_scale_2", "weight_global_scale", "input_global_scale", "weight_g_idx")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A weight in FP8: its name in the files, the layout that its scales' names follow, how far they reach, what
    becomes of its input, and their shapes; input_shape is None where the input has none.
    """

    name: str
    layout: Layout
    scheme: Scheme
    scale_shape: tuple[int, ...]
    input_shape: tuple[int, ...] | None

    @property
    def scale(self) -> str:
        """The name of the weight's scales in the files."""
        return name_of_scale(self.name, self.layout.weight_scale)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What files hold in FP8: linear layers, by module; and weights that the model merges with others, by tensor."""

    layers: dict[str, Stored]
    decoded: dict[str, Stored]


def find_stored(files: Sequence[Path], modules: Mapping[str, nn.Module], targets_of: Targets, said: Said) -> Found:
    """How the weights that are in FP8 are stored.

    modules: the model's linear layers. targets_of: from names in the files to what they become in the model. What it
    does not have (the head, for a base model; layers beyond the wanted number) is passed over, as transformers does.
    said: what config.json says of each layer. ValueError for codes without a scale, of another format, of a shape that
    is not the module's, of a parameter that is no linear layer's, that nothing names, or that are said to be none; for
    what stands beside them and would change their values; for files that are no safetensors.
    """
    entries: dict[str, Entry] = {}
    places: dict[str, Path] = {}
    for path in files:
        of_file = read_entries(path)
        entries |= of_file
        places |= dict.fromkeys(of_file, path)
    found = Found(layers={}, decoded={})
    for name, target in targets_of(entries).items():
        module, _, leaf = target.parameter.rpartition(".")
        if not is_packed(entries[name]):
            if leaf == "weight" and module in modules and not entries[name].dtype.startswith(("F", "BF")):
                raise UserError(f"{name} is {entries[name].dtype}: weights are read in {_CODES} only")
            continue
        if target.merged and leaf == "weight" and module in modules:
            raise UserError(f"{name} is in FP8, and becomes a part of {target.parameter}, which has no scale for it")
        if target.merged:
            found.decoded[name] = _stored(name, name.removesuffix(".weight"), None, entries, said)
        elif leaf != "weight" or module not in modules:
            raise UserError(f"{name} is in FP8, and the weight of no linear layer of this model")
        else:
            found.layers[module] = _stored(name, module, modules[module], entries, said)
    for stored in (*found.layers.values(), *found.decoded.values()):
        _check_beside(stored, places)
    return found


def _check_beside(stored: Stored, places: Mapping[str, Path]) -> None:
    """UserError for what stands beside codes in the files, and would change their values."""
    scales = sorted({layout.weight_scale for layout in LAYOUTS.values()})
    both = [scale for scale in scales if name_of_scale(stored.name, scale) in places]
    if len(both) > 1:
        raise UserError(f"{stored.name} has {' and '.join(both)} beside it: which of them is its scale is not known")
    for leaf in _UNSERVED:
        if (name := name_of_scale(stored.name, leaf)) in places:
            raise UserError(f"{name} stands beside codes in FP8, and is not served here: {REMEDY}")
    for leaf in _ZERO_POINTS:
        if (name := name_of_scale(stored.name, leaf)) in places:
            with safe_open(places[name], framework="pt") as file:
                if bool((file.get_tensor(name).float() != 0).any()):
                    raise UserError(f"{name} is not zero, and asymmetric codes are not served here: {REMEDY}")


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


def _stored(name: str, module: str, layer: Any, entries: Mapping[str, Entry], said: Said) -> Stored:
    """How one weight is stored. layer: None where it is no layer of its own."""
    entry, stem = entries[name], name.removesuffix(".weight")
    if entry.dtype != _CODES:
        raise UserError(f"{name} is {entry.dtype}: weights are read in {_CODES} only")
    if layer is not None and entry.shape != tuple(layer.weight.shape):
        raise UserError(f"{name} has shape {list(entry.shape)}, the model's {list(layer.weight.shape)}")
    if len(entry.shape) != 2:
        raise UserError(f"{name} is in FP8, of shape {list(entry.shape)}: a weight with scales is a matrix")
    classes = [EVERY_LINEAR] if layer is None else [EVERY_LINEAR, *(cls.__name__ for cls in type(layer).__mro__)]
    scheme, word = said.scheme_of([stem, module], classes), said.keeps([stem, module], classes)
    if scheme is None or word is not None:
        why = f"keeps it in high precision ({word})" if word is not None else "no group of it names this layer"
        raise UserError(f"{name} is in FP8, and by the quantization_config of config.json {why}")
    layout = next((layout for layout in LAYOUTS.values() if name_of_scale(name, layout.weight_scale) in entries), None)
    if layout is None:
        names = " or ".join(sorted({layout.weight_scale for layout in LAYOUTS.values()}))
        raise UserError(f"{name} is in FP8, and no {names} beside it: its values are not known")
    sizes = entry.shape[::-1] if layer is not None and is_conv1d(layer) else entry.shape
    scale_shape = _check_scale(name_of_scale(name, layout.weight_scale), scheme, sizes, entries)
    input_scale, one = name_of_scale(name, layout.input_scale), Scheme()
    input_shape = _check_scale(input_scale, one, sizes, entries) if input_scale in entries else None
    return Stored(name=name, layout=layout, scheme=scheme, scale_shape=scale_shape, input_shape=input_shape)


def _check_scale(name: str, scheme: Scheme, sizes: tuple[int, ...], entries: Mapping[str, Entry]) -> tuple[int, ...]:
    """The shape of scales: that of the scheme, in one of the forms that writers have for it."""
    entry, whole = entries[name], scheme.scale_shape(*sizes)
    forms = {"tensor": [(), (1,)], "row": [whole, whole[:1]]}.get(scheme.weight, [whole, _with_ones(whole)])
    if entry.shape not in forms:
        size = "number" if scheme.weight == "tensor" else f"tensor of shape {list(whole)}"
        raise UserError(
            f"{name} has shape {list(entry.shape)}: by config.json it is one scale a {scheme.weight}, a {size}"
        )
    if entry.dtype not in _SCALE_DTYPES:
        raise UserError(f"{name} is {entry.dtype}: a scale is one of {', '.join(_SCALE_DTYPES)}")
    return entry.shape


def _with_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[a, 1, b, 1], as ModelOpt writes scales of blocks."""
    return tuple(size for each in shape for size in (each, 1))
