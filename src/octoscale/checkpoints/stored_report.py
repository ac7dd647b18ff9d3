"""What a checkpoint in FP8 holds, layer by layer: how far its scales reach, and what becomes of each layer's input.

    print(report_stored(skeleton, files, said))

    model.layers.0.self_attn.q_proj  FP8      weight row [576, 1]           input amax:row     factors
    lm_head                          kept     BF16 in the files

`factors` says that some scale of the layer is no power of two, and is computed with as it is. Only headers and scales
are read, no weight.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from octoscale.checkpoints.headers import Stored, find_stored, name_of_scale, read_entries
from octoscale.checkpoints.names import parameters_of
from octoscale.checkpoints.said import Said, input_words
from octoscale.conversion.convert import preview
from octoscale.layers.factor import is_one, split_scales
from octoscale.layers.origin import is_linear
from octoscale.numerics.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class StoredRow:
    """A module that owns a matrix. state: FP8, kept, or decoded: in FP8 in the files, and merged with others here.

    weight, scale_shape, input, powers_of_two: of what is in FP8; None of what is kept.
    """

    module: str
    state: str
    reason: str = ""
    weight: str | None = None
    scale_shape: tuple[int, ...] | None = None
    input: str | None = None
    powers_of_two: bool | None = None

    def __str__(self) -> str:
        if self.weight is None:
            return f"{self.state:7}  {self.reason}"
        scales = f"weight {self.weight} {list(self.scale_shape or ())}"
        factors = "powers of two" if self.powers_of_two else "factors"
        words = f"  input {self.input}" if self.input is not None else ""
        return f"{self.state:7}  {scales:28}{words:17}  {factors}{f'  {self.reason}' * bool(self.reason)}"


@dataclass(frozen=True, kw_only=True)
class StoredReport:
    """Every module of a model that owns a matrix, and the weights that it merges."""

    layout: str
    modules: tuple[StoredRow, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {"scaling": "stored", "layout": self.layout, "modules": [asdict(row) for row in self.modules]}

    def __str__(self) -> str:
        width = max(len(row.module) for row in self.modules)
        return "\n".join([*(f"{row.module:{width}}  {row}" for row in self.modules), self.summary()])

    def summary(self) -> str:
        """How many are what; and what is ours to choose, for files say `dynamic` and no more."""
        counts = {state: sum(row.state == state for row in self.modules) for state in ("FP8", "decoded", "kept")}
        words = f"{counts['FP8']} linear layers in FP8 ({self.layout}); {counts['kept']} modules kept"
        if counts["decoded"]:
            words += f"; {counts['decoded']} weights decoded, for the model stacks them in one parameter without scales"
        if any((row.input or "").startswith("amax") for row in self.modules):
            words += "; dynamic inputs have scales that are powers of two here"
        return words


def report_stored(model: Any, files: Sequence[Path], said: Said) -> StoredReport:
    """What the files of a model hold, which was made without weights (device meta). UserError as loading it gives."""
    linears = {name: module for name, module in model.named_modules(remove_duplicate=False) if is_linear(module)}
    found = find_stored(files, linears, lambda names: parameters_of(model, names), said)
    dtypes = {name: entry.dtype for path in files for name, entry in read_entries(path).items()}
    targets = parameters_of(model, dtypes)
    held = {target.parameter.rpartition(".")[0]: dtypes[name] for name, target in targets.items()}
    rows = []
    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(path, framework="pt")) for path in files]
        tensors = {name: file for file in opened for name in file.keys()}  # noqa: SIM118  no dict

        def row(name: str, stored: Stored, state: str, reason: str = "") -> StoredRow:
            is_layer = state == "FP8"
            return StoredRow(
                module=name,
                state=state,
                reason=reason,
                weight=stored.scheme.weight,
                scale_shape=stored.scale_shape,
                input=input_words(stored.scheme) if is_layer else None,
                powers_of_two=all(_is_power_of_two(tensors[each].get_tensor(each), each) for each in _scales(stored)),
            )

        for module in preview(model, Recipe.amax()).modules:
            if module.module in found.layers:
                rows.append(row(module.module, found.layers[module.module], "FP8"))
                continue
            parts = [name for name in found.decoded if targets[name].parameter.rpartition(".")[0] == module.module]
            rows += [row(name.removesuffix(".weight"), found.decoded[name], "decoded") for name in parts]
            if not parts:
                held_as = held.get(module.module)
                reason = "tied" if held_as is None else f"{held_as} in the files"
                rows.append(StoredRow(module=module.module, state="kept", reason=reason))
    return StoredReport(layout=said.layout, modules=tuple(rows))


def _scales(stored: Stored) -> list[str]:
    """The names of a layer's scales in the files."""
    return [stored.scale] + [name_of_scale(stored.name, stored.layout.input_scale)] * (stored.input_shape is not None)


def _is_power_of_two(scales: Tensor, what: str) -> bool:
    return is_one(split_scales(scales, what)[1])
