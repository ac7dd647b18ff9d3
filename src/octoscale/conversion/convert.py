"""Put a model's linear layers into FP8, in place, and take them out again; say of every module what was done and why.

    report = convert(model, Recipe.amax())        print(report)
    revert(model)

What is converted: in a transformers model, the linear layers of the stack of decoder layers, as in the paper; in any
other model, every linear layer but the head. Not: the LM head, embeddings, whatever `recipe.skip` matches. A pattern
is a module name or a part of it with shell wildcards (patterns.py): `down_proj`, `layers.0.*`. A pattern that matches
nothing is an error, for a stale name would put a layer into FP8 that was meant to stay out.

Adapters (peft's LoRA) stay as they are: a layer that they wrap, `q_proj.base_layer`, counts as `q_proj`.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from octoscale.conversion.kinds import kind_of
from octoscale.conversion.patterns import check_patterns
from octoscale.conversion.reasons import reasons_to_keep, why_skipped
from octoscale.conversion.record import fp8_layers
from octoscale.conversion.stacks import decoder_stacks, layer_of
from octoscale.kernels.base import codes_dtype
from octoscale.layers.linear import Fp8Linear, to_fp8
from octoscale.layers.origin import is_linear
from octoscale.numerics.formats import ROLES, get_format
from octoscale.numerics.recipe import Recipe
from octoscale.runs.scales import LayerName
from octoscale.system.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ModuleReport:
    """One line of the report: a module that owns a matrix, a linear layer or another, and what became of it."""

    module: str
    type: str
    shape: tuple[int, ...]
    kind: str
    layer: int | None
    converted: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """Every module of a model that owns a matrix, in the model's order: what is not listed has none. A table."""

    recipe: Recipe
    modules: tuple[ModuleReport, ...]

    @property
    def converted(self) -> tuple[ModuleReport, ...]:
        """The modules that are FP8 now."""
        return tuple(row for row in self.modules if row.converted)

    @property
    def skipped(self) -> tuple[ModuleReport, ...]:
        """The modules that stayed as they were."""
        return tuple(row for row in self.modules if not row.converted)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "scaling": self.recipe.name,
            "formats": {role: self.recipe.operand(role).format for role in ROLES},
            "modules": [asdict(row) for row in self.modules],
        }

    def __str__(self) -> str:
        width = max(len(row.module) for row in self.modules)
        lines = [
            f"{row.module:{width}}  {row.kind:8}  {'FP8 ' if row.converted else 'kept'}  {row.reason}"
            for row in self.modules
        ]
        return "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        """One sentence: how many modules, in which formats, and which stayed out."""
        formats = ", ".join(f"{role} {self.recipe.operand(role)}" for role in ROLES)
        kept = ", ".join(row.module for row in self.skipped[:4]) + (", ..." if len(self.skipped) > 4 else "")
        num_fp8, num_kept = len(self.converted), len(self.skipped)
        return f"{num_fp8} linear layers in FP8 ({formats}); {num_kept} modules kept ({kept or 'none'})"


def convert(model: nn.Module, recipe: Recipe) -> ConversionReport:
    """Replace the model's linear layers by Fp8Linear, in place; parameters stay the same objects.

    Raises ValueError, and changes nothing, if the model is converted already, if a skip pattern matches no linear
    layer (near names are listed), if torch has no dtype for codes of a format, or if no layer would be converted.
    """
    report = preview(model, recipe)
    replace_linears(model, report.converted, lambda module, name: to_fp8(module, name, recipe))
    return report


def replace_linears(
    model: nn.Module, rows: Iterable[ModuleReport], make: Callable[[nn.Module, LayerName], nn.Module]
) -> None:
    """Put `make(module, name)` in the place of each module that these rows of a report name.

    A module that stands in several places is made anew once, and stands in all of them again.
    """
    made: dict[nn.Module, nn.Module] = {}
    for row in rows:
        module = model.get_submodule(row.module)
        if module not in made:
            made[module] = make(module, LayerName(module=row.module, layer=row.layer, kind=row.kind))
        replace_module(model, row.module, made[module])


def revert(model: nn.Module) -> int:
    """Put back the layers that `convert` replaced; returns how many. The parameters keep the values they have now."""
    originals: dict[nn.Module, nn.Module] = {}
    places = [(name, m) for name, m in model.named_modules(remove_duplicate=False) if isinstance(m, Fp8Linear)]
    for name, module in places:
        originals.setdefault(module, module.original())
        replace_module(model, name, originals[module])
    return len(originals)


def forget_casts(model: nn.Module) -> None:
    """Have every FP8 layer cast its weight again, or look at its codes: after a write to `weight.data` in place, which
    leaves no trace.
    """
    for layer in fp8_layers(model):
        layer.fp8.runtime.weight, layer.fp8.runtime.codes = (None, None), None


def preview(model: nn.Module, recipe: Recipe) -> ConversionReport:
    """What `convert` would do, without doing it; raises as `convert`. Works without weights too (device meta).

    `octoscale quantize` does the same with the weights of a checkpoint.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if any(isinstance(module, Fp8Linear) for module in modules.values()):
        raise UserError("this model is in FP8 already: octoscale.revert(model) first")
    if is_linear(model):
        raise UserError(
            f"a {type(model).__name__} cannot be replaced in itself: put it into a model, nn.Sequential(it)"
        )
    for role in ROLES:
        codes_dtype(get_format(recipe.operand(role).format))
    linear = [name for name, module in modules.items() if is_linear(module)]
    check_patterns("skip pattern", recipe.skip, "linear layer", linear)
    stacks = decoder_stacks(model)
    reasons = _skipped(modules, recipe, reasons_to_keep(model, stacks))
    rows = []
    for name, module in modules.items():
        shape = _shape_of(module)
        if shape is None:
            continue
        layer = layer_of(name, stacks or [])
        rows.append(
            ModuleReport(
                module=name,
                type=type(module).__name__,
                shape=shape,
                kind=kind_of(name),
                layer=layer,
                converted=module not in reasons,
                reason=reasons.get(module) or ("linear layer" if layer is None else f"decoder layer {layer}"),
            )
        )
    report = ConversionReport(recipe=recipe, modules=tuple(rows))
    if not report.converted:
        why = "; ".join(sorted({row.reason for row in rows})) or "it has no linear layer"
        raise UserError(f"nothing to convert in this {type(model).__name__}: {why}")
    return report


def _skipped(modules: dict[str, nn.Module], recipe: Recipe, reasons: dict[nn.Module, str]) -> dict[nn.Module, str]:
    """The reasons to keep a module, with those that the recipe's patterns give."""
    for name, module in modules.items():
        reason = why_skipped(name, recipe.skip)
        if reason is not None:
            reasons.setdefault(module, reason)
    return reasons


def _shape_of(module: nn.Module) -> tuple[int, ...] | None:
    """The shape of a linear layer's weight, or of another module's first parameter of two dimensions or more."""
    if is_linear(module):
        weight: Any = module.weight
        return () if is_lazy(weight) else tuple(weight.shape)
    own = (parameter for parameter in module.parameters(recurse=False) if not is_lazy(parameter))
    return next((tuple(parameter.shape) for parameter in own if parameter.ndim >= 2), None)


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place that `name` means."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
