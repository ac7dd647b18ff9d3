"""OctoscaleQuantizer: puts StoredLinear layers into a model that transformers is about to load, and has them filled.

transformers asks it before it reads weights, for each weight that it reads, after all of them, and before it saves. The
layers are placed where the files hold codes; where they hold high precision, each weight is cast when it comes. Codes
that the model merges with others (experts, which it stacks) are handed to transformers as values (decoded.py).
"""

import logging
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps, WeightRenaming
from transformers.quantizers import HfQuantizer

from octoscale.checkpoints.casting import Casting
from octoscale.checkpoints.config import OctoscaleConfig
from octoscale.checkpoints.headers import Stored, find_stored, name_of_scale, read_entries
from octoscale.checkpoints.names import Saving, Target, kept_in_files, parameters_of, renamed
from octoscale.checkpoints.shards import report_for_files
from octoscale.conversion.convert import ConversionReport, ModuleReport, preview, replace_linears, replace_module
from octoscale.conversion.ignore import ignored
from octoscale.conversion.plain import why_not_plain
from octoscale.conversion.weight_reads import why_kept
from octoscale.kernels.base import held_formats
from octoscale.layers.layouts import LAYOUTS, OWN_KEY, layout_for
from octoscale.layers.origin import is_linear
from octoscale.layers.schemes import check_stored_formats
from octoscale.layers.stored import StoredLinear, shape_in, to_stored
from octoscale.numerics.recipe import Recipe
from octoscale.numerics.scaling import Constant
from octoscale.runs.scales import LayerName
from octoscale.system.errors import UserError

_CODES = frozenset(held_formats())
_log = logging.getLogger(__name__)


class OctoscaleQuantizer(HfQuantizer):  # type: ignore[misc]
    """Puts StoredLinear layers into a model that transformers is about to load."""

    quantization_config: OctoscaleConfig
    requires_calibration = False

    def __init__(self, quantization_config: OctoscaleConfig, **options: Any) -> None:
        super().__init__(quantization_config, **options)
        self.refusals: list[ValueError] = []  # of weights that cannot be quantized, while they are read
        self.filled: set[str] = set()  # the layers whose weight and scales come from a file, or are made from one
        self.decoded: dict[str, Stored] = {}  # the tensors of the files whose values are read, not their codes
        self._scales: dict[str, str] = {}  # name in the files -> in the model
        self._loading: PreTrainedModel | None = None

    def validate_environment(self, *_: Any, **__: Any) -> None:
        """Static scales must come from somewhere."""
        config = self.quantization_config
        known = config.activations != "static" or isinstance(config.recipe().input.rule, Constant)
        if not (self.pre_quantized or known):
            raise UserError("static scales need a text to be found on: octoscale quantize --activations static")

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **_: Any
    ) -> None:
        self._loading = model
        if self.pre_quantized:
            self._expect_stored(model, [Path(path) for path in checkpoint_files or []])
        else:
            self._expect_originals(model, [Path(path) for path in checkpoint_files or []])

    def _expect_stored(self, model: PreTrainedModel, files: list[Path]) -> None:
        """Layers for the codes that the files hold."""
        config = self.quantization_config
        assert config.said is not None
        linears = {n: m for n, m in model.named_modules(remove_duplicate=False) if is_linear(m)}
        found = find_stored(files, linears, lambda names: parameters_of(model, names), config.said)
        layers, self.decoded = found.layers, found.decoded
        if not (layers or self.decoded):
            raise UserError("config.json says that the weights are FP8, and no file holds FP8 weights")
        _adopt(config, getattr(model.config, OWN_KEY, None))
        if config.layout not in (layouts := _layouts([*layers.values(), *self.decoded.values()])):
            config.layout = layouts[0]
        for module, stored in layers.items():
            if stored.scheme.activations == "static" and stored.input_shape is None:
                raise UserError(f"{module}: config.json says that inputs have static scales, and this layer has none")
        rows = preview(model, Recipe.amax()).modules
        _check_served(model, [row for row in rows if row.module in layers])
        self._place(model, {row: layers[row.module] for row in rows if row.module in layers})
        self.filled.update(layers)
        config.kept = _kept_in(files, [replace(row, converted=row.module in layers) for row in rows], self.decoded)
        for module, stored in layers.items():
            for scale in (stored.layout.weight_scale, stored.layout.input_scale):
                self._scales[name_of_scale(stored.name, scale)] = f"{module}.{scale}"

    def _expect_originals(self, model: PreTrainedModel, files: list[Path]) -> None:
        """Layers for what is to be quantized when it comes."""
        config = self.quantization_config
        report = preview(model, config.recipe())
        if all(path.suffix == ".safetensors" for path in files):
            report = report_for_files(report, model, files)
        config.kept = kept_in_files(report, model)
        self._place(model, dict.fromkeys(report.converted))
        for row in report.converted:  # transformers before 5.21 casts what it reads to the dtype that it finds
            layer: Any = model.get_submodule(row.module)
            layer.weight = nn.Parameter(layer.weight.to(layer.fp8.dtype), requires_grad=False)

    def _place(self, model: PreTrainedModel, rows: Mapping[ModuleReport, Stored | None]) -> None:
        """A StoredLinear for each of these modules: as the files hold it, or as the config would have it."""
        config = self.quantization_config
        by_name = {row.module: stored for row, stored in rows.items()}

        def stored(module: nn.Module, name: LayerName) -> StoredLinear:
            found, scheme, recipe = by_name[name.module], config.scheme, config.recipe()
            if found is not None and found.scheme != scheme:  # one of several groups
                scheme, recipe = found.scheme, found.scheme.recipe()
            layout = layout_for(config.layout, scheme)
            if found is None:
                layout.check_sizes(scheme, name.module, module.get_parameter("weight").shape)
                return to_stored(module, name, recipe, layout, scheme.activations, shape_in(layout, scheme, module))
            return to_stored(module, name, recipe, layout, scheme.activations, found.scale_shape, found.input_shape)

        replace_linears(model, rows, stored)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        """Check every scale now, not at the first use; freeze what transformers may have thawed."""
        self._loading = None
        if self.refusals:
            raise self.refusals[0]
        filled = {model.get_submodule(name) for name in self.filled}
        for path, module in model.named_modules(remove_duplicate=False):
            if module not in filled and isinstance(module, StoredLinear) and module.weight.dtype not in _CODES:
                raise UserError(f"{path}.weight: the files hold no tensor for it")
            codes = [name for name, p in module.named_parameters(recurse=False) if p.dtype in _CODES]
            if module not in filled and codes:
                raise UserError(  # transformers ties weights, and knows nothing of scales
                    f"{path} shares its {codes[0]} with another layer, and has no scale: leave it out with skip"
                )
            if isinstance(module, StoredLinear):
                for name in ("weight", *module.scale_names):
                    parameter = module.get_parameter(name).requires_grad_(False)
                    if self.pre_quantized and not getattr(parameter, "_is_hf_initialized", False):
                        raise UserError(f"{path}.{name}: transformers found no tensor for it, by the model's own names")
                module.quantized_weight()
                module.write_scales_as(module.fp8.layout)
        own = self.quantization_config.own()
        if own:
            setattr(model.config, OWN_KEY, own)

    def update_weight_conversions(
        self, weight_conversions: list[Any], model: PreTrainedModel | None = None
    ) -> list[Any]:
        """A scale goes where its weight goes, also where the model's rules name the weight alone."""
        model = self._loading if model is None else model  # which transformers before 5.21 does not say
        assert model is not None
        rules, names = list(weight_conversions), model.state_dict(keep_vars=True)
        for name, wanted in self._scales.items():
            if wanted in names and parameters_of(model, [name], weight_conversions).get(name) != Target(wanted):
                renamings = [rule for rule in weight_conversions if isinstance(rule, WeightRenaming)]
                rules.append(WeightRenaming(f"^{re.escape(renamed(name, renamings))}$", wanted))
        return rules

    def get_state_dict_and_metadata(self, model: PreTrainedModel) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
        """What save_pretrained is to write: a scale beside its weight, by whichever name that is saved."""
        saving = Saving(model)
        if not saving.changes_names:
            return None, {}
        moved: dict[str, str] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            for scale in module.scale_names if isinstance(module, StoredLinear) else ():
                wanted = name_of_scale(saving.name_of(f"{name}.weight"), scale)
                if saving.name_of(f"{name}.{scale}") != wanted:
                    if saving.name_of(wanted) != wanted:
                        raise UserError(f"{name}: transformers would save its scale apart from its weight")
                    moved[f"{name}.{scale}"] = wanted
        return {moved.get(name, name): tensor for name, tensor in model.state_dict().items()}, {}

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **_: Any) -> bool:
        """Whether this is the weight of a layer that is quantized while it is loaded."""
        if self.pre_quantized or not param_name.endswith(".weight"):
            return False
        return isinstance(model.get_submodule(param_name.removesuffix(".weight")), StoredLinear)

    def get_quantize_ops(self) -> ConversionOps:
        """What casts a weight on its way in."""
        return Casting(self.quantization_config, self.refusals, self.filled)

    def _dequantize(self, model: PreTrainedModel, dtype: torch.dtype | None = None) -> PreTrainedModel:
        """Put plain layers back, with the values of the codes."""
        for name, module in list(model.named_modules()):
            if isinstance(module, StoredLinear):
                original = module.original()
                replace_module(model, name, original if dtype is None else original.to(dtype))
        return model

    def is_serializable(self) -> bool:
        """save_pretrained writes the layout of the config; where formats forbid it, the log says so, as HF has it."""
        try:
            check_stored_formats(self.quantization_config.recipe())
        except UserError as error:
            _log.warning("this model cannot be saved: %s", error)
            return False
        return True

    @property
    def is_trainable(self) -> bool:
        """Adapters can be trained on the frozen weights."""
        return True


def _check_served(model: PreTrainedModel, rows: Iterable[ModuleReport]) -> None:
    """ValueError for a weight in FP8 whose layer cannot be one of ours: it would compute something else, or not run."""
    reads = why_kept(model)
    for row in rows:
        why = reads.get(row.module) or why_not_plain(model.get_submodule(row.module))
        if why is not None:
            raise UserError(f"{row.module} is in FP8 in the checkpoint, and cannot be here: {why}")


def _kept_in(files: Iterable[Path], rows: Iterable[ModuleReport], decoded: Container[str]) -> list[str]:
    """What a checkpoint holds in high precision, or the model does, and must say so when it is saved again."""
    entries = {name: entry for path in files for name, entry in read_entries(path).items()}
    report = ConversionReport(recipe=Recipe.amax(), modules=tuple(rows))
    codes = [name for name, entry in entries.items() if entry.dtype.startswith("F8") and name not in decoded]
    return ignored(report, {name: entry.shape for name, entry in entries.items()}, codes)


def _layouts(found: Iterable[Stored]) -> list[str]:
    """The layouts whose names all stored weights follow."""
    names = {stored.layout.weight_scale for stored in found}
    if len(names) > 1:
        raise UserError(f"the checkpoint mixes scales called {' and '.join(sorted(names))}")
    return [layout.name for layout in LAYOUTS.values() if layout.weight_scale in names]


def _adopt(config: OctoscaleConfig, words: Any) -> None:
    """Take over what config.json of a file of ours says about itself, where it agrees with what others read."""
    if isinstance(words, dict) and words.get("activations") == config.activations and config.own():
        scheme, before = config.scheme, config.scaling
        config.scaling = str(words.get("scaling", before))
        try:
            agrees = config.scheme == scheme
            check_stored_formats(config.recipe())
        except ValueError as error:
            raise UserError(f"config.json: {OWN_KEY}.scaling is {config.scaling!r}: {error}") from error
        if not agrees:
            config.scaling = before
