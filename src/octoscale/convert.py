"""Put a model's linear layers into FP8, in place, and take them out again; say of every module what was done and why.

    report = convert(model, Recipe.amax())        print(report)
    revert(model)

What is converted: in a transformers model, the linear layers of the stack of decoder layers, as in the paper; in any
other model, every linear layer but the head. Not: the LM head, embeddings, whatever `recipe.skip` matches. A pattern
is a module name or a part of it with shell wildcards: `down_proj`, `layers.0.*`, `*.self_attn.?_proj`. A pattern that
matches nothing is an error, for a stale name would put a layer into FP8 that was meant to stay out.

Adapters (peft's LoRA) stay as they are: a layer that they wrap, `q_proj.base_layer`, counts as `q_proj`.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from octoscale.formats import ROLES
from octoscale.linear import Fp8Linear, is_conv1d, is_linear, to_fp8
from octoscale.recipe import Recipe
from octoscale.telemetry import LayerName, fp8_layers

#: What the paper's plots call a layer, by the end of its name; the first row that matches counts.
KIND_OF_NAME: tuple[tuple[str, str], ...] = (
    (r"(q_proj|k_proj|v_proj|qkv_proj|in_proj|c_attn|query_key_value|qkv|Wqkv)", "attn_qkv"),
    (r"(wq|wk|wv|query|key|value|\w*Attention\.[qkv])", "attn_qkv"),
    (r"(attn|attention|self_attn|self_attention)\.(c_proj|proj|dense|o_proj|out_proj|wo)", "attn_out"),
    (r"DenseReluDense\.wo", "ffn_out"),
    (r"(o_proj|out_proj|wo|\w*Attention\.o|attention\.output\.dense)", "attn_out"),
    (r"(c_fc|gate_proj|up_proj|gate_up_proj|fc1|fc_in|dense_h_to_4h|w1|w3|wi|wi_0|wi_1|intermediate\.dense)", "ffn_in"),
    (r"(mlp\.c_proj|down_proj|fc2|fc_out|dense_4h_to_h|w2|output\.dense)", "ffn_out"),
)
KINDS = ("attn_qkv", "attn_out", "ffn_in", "ffn_out", "other")

#: Under this name an adapter's wrapper keeps the layer that it wraps.
_WRAPPED = ".base_layer"

#: The last part of the names under which models keep their head.
HEAD_NAMES = frozenset({"lm_head", "head", "score", "classifier", "embed_out", "qa_outputs", "output", "output_layer"})


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
    layer (near names are listed), or if no layer would be converted.
    """
    report = plan(model, recipe)
    replaced: dict[nn.Module, Fp8Linear] = {}
    for row in report.converted:
        module = model.get_submodule(row.module)
        if module not in replaced:
            name = LayerName(module=row.module, layer=row.layer, kind=row.kind)
            replaced[module] = to_fp8(module, name, recipe)
        replace_module(model, row.module, replaced[module])
    return report


def revert(model: nn.Module) -> int:
    """Put back the layers that `convert` replaced; returns how many. The parameters keep the values they have now."""
    originals: dict[nn.Module, nn.Module] = {}
    places = [(name, m) for name, m in model.named_modules(remove_duplicate=False) if isinstance(m, Fp8Linear)]
    for name, module in places:
        originals.setdefault(module, module.original())
        replace_module(model, name, originals[module])
    return len(originals)


def forget_casts(model: nn.Module) -> None:
    """Have every FP8 layer cast its weight again: after a write to `weight.data` in place, which leaves no trace."""
    for layer in fp8_layers(model):
        layer.fp8.runtime.weight = (None, None)


def plan(model: nn.Module, recipe: Recipe) -> ConversionReport:
    """What `convert` would do, without doing it; raises as `convert`. Works without weights too (device meta)."""
    modules = dict(model.named_modules(remove_duplicate=False))
    if any(isinstance(module, Fp8Linear) for module in modules.values()):
        raise ValueError("this model is in FP8 already: octoscale.revert(model) first")
    if is_linear(model):
        raise ValueError(
            f"a {type(model).__name__} cannot be replaced in itself: put it into a model, nn.Sequential(it)"
        )
    _check_patterns(recipe.skip, [name for name, module in modules.items() if is_linear(module)])
    stacks = _decoder_stacks(model)
    reasons = _reasons_to_keep(model, recipe, stacks)
    rows = []
    for name, module in modules.items():
        matrix = module.weight if is_linear(module) else _own_matrix(module)
        if matrix is None:
            continue
        stack = next((stack for stack in stacks if name.startswith(f"{stack}.")), None)
        layer = int(name.removeprefix(f"{stack}.").split(".")[0]) if stack else None
        rows.append(
            ModuleReport(
                module=name,
                type=type(module).__name__,
                shape=tuple(matrix.shape),
                kind=kind_of(name),
                layer=layer,
                converted=module not in reasons,
                reason=reasons.get(module) or (f"decoder layer {layer}" if stack else "linear layer"),
            )
        )
    report = ConversionReport(recipe=recipe, modules=tuple(rows))
    if not report.converted:
        why = "; ".join(sorted({row.reason for row in rows})) or "it has no linear layer"
        raise ValueError(f"nothing to convert in this {type(model).__name__}: {why}")
    return report


def kept_linears(report: ConversionReport) -> list[str]:
    """The linear layers that stay in high precision, for the list that other systems want of them."""
    return [row.module for row in report.skipped if row.type in ("Linear", "Conv1D")]


def kind_of(name: str) -> str:
    """The kind of a linear layer by its name; `other` if the name says nothing."""
    for pattern, kind in KIND_OF_NAME:
        if re.search(rf"(^|\.){pattern}$", name.removesuffix(_WRAPPED)):
            return kind
    return "other"


def _reasons_to_keep(model: nn.Module, recipe: Recipe, stacks: list[str]) -> dict[nn.Module, str]:
    """The modules that stay as they are, each with the first reason that any of its names gives."""
    head = _head(model, has_stacks=bool(stacks))
    fused = [name for name, module in model.named_modules() if isinstance(module, nn.TransformerEncoderLayer)]
    adapted = [name.removesuffix(_WRAPPED) for name, _ in model.named_modules() if name.endswith(_WRAPPED)]
    reasons: dict[nn.Module, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        reason = _why_not_itself(module)
        if name == head:
            reason = "head"
        elif stacks and not _is_below(name, stacks):
            reason = reason or "outside the decoder layers"
        elif _is_below(name, adapted) and not name.endswith(_WRAPPED):
            reason = reason or "adapter"
        elif _is_below(name, fused):
            reason = reason or "torch's TransformerEncoderLayer reads its weight without calling it"
        pattern = next((pattern for pattern in recipe.skip if _matches(pattern, name)), None)
        if pattern is not None:
            reason = reason or f"skip pattern {pattern!r}"
        if reason is not None:
            reasons.setdefault(module, reason)
    return reasons


def _why_not_itself(module: nn.Module) -> str | None:
    """The reason to leave a module as it is that lies in the module; None if it can be converted."""
    if isinstance(module, nn.Embedding):
        return "embedding"
    if type(module) is not nn.Linear and not is_conv1d(module):
        return f"{type(module).__name__} has a forward of its own"
    if "forward" in module.__dict__:
        return "its forward was replaced by another library: convert before that"
    return None


def _is_below(name: str, parents: list[str]) -> bool:
    return any(name.startswith(f"{parent}.") for parent in parents)


def _own_matrix(module: nn.Module) -> Any:
    """The first parameter of the module itself that has two dimensions or more; None if it has none."""
    return next((parameter for parameter in module.parameters(recurse=False) if parameter.ndim >= 2), None)


def _decoder_stacks(model: nn.Module) -> list[str]:
    """The names of a transformers model's outermost ModuleLists that hold linear layers; none for another model.

    peft's model around a transformers model counts as that one.
    """
    if not any(cls.__name__ in {"PreTrainedModel", "PeftModel"} for cls in type(model).__mro__):
        return []
    stacks: list[str] = []
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.ModuleList)
            and not _is_below(name, stacks)
            and any(is_linear(m) for m in module.modules())
        ):
            stacks.append(name)
    return stacks


def _head(model: nn.Module, *, has_stacks: bool) -> str | None:
    """The name of the output layer: what transformers says, else a name that heads have, else the last linear layer."""
    linears: list[str] = [name for name, module in model.named_modules() if is_linear(module)]
    get_output = getattr(model, "get_output_embeddings", None)
    output = get_output() if callable(get_output) else None
    named = [name for name in linears if model.get_submodule(name) is output]
    named += [name for name in linears if name.rsplit(".", 1)[-1] in HEAD_NAMES and "." not in name]
    if named:
        return named[0]
    return linears[-1] if len(linears) > 1 and not has_stacks else None


def _matches(pattern: str, name: str) -> bool:
    names = {name, name.removesuffix(_WRAPPED)}
    return any(fnmatchcase(each, pattern) or fnmatchcase(each, f"*.{pattern}") for each in names)


def _check_patterns(patterns: tuple[str, ...], names: list[str]) -> None:
    for pattern in patterns:
        if not any(_matches(pattern, name) for name in names):
            near = difflib.get_close_matches(pattern, sorted({*names, *_leaves(names)}), n=4, cutoff=0.4)
            hint = ", ".join(near or sorted(set(_leaves(names)))[:8])
            raise ValueError(f"skip pattern {pattern!r} matches no linear layer; near names: {hint}")


def _leaves(names: list[str]) -> Iterator[str]:
    return (name.rsplit(".", 1)[-1] for name in names)


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place that `name` means."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
