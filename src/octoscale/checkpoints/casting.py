"""A weight becomes codes and scales, in a model that is in memory, and while transformers reads a checkpoint."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps

from octoscale.checkpoints.config import OctoscaleConfig
from octoscale.checkpoints.names import Saving, kept_in_files
from octoscale.checkpoints.shards import without_merged
from octoscale.conversion.convert import preview, replace_linears
from octoscale.layers.layouts import layout_for
from octoscale.layers.stored import StoredLinear, check_finite_weight, scale_parameter, shape_in, to_stored
from octoscale.numerics.scaling import Constant
from octoscale.runs.scales import LayerName
from octoscale.system.errors import UserError


def quantize_model(model: PreTrainedModel, config: OctoscaleConfig) -> None:
    """Quantize a model that is in memory already, in place: what from_pretrained does with `config` while it loads.

    ValueError, and the model is what it was, for a weight that holds infinity or NaN.
    """
    layout, recipe, scheme = layout_for(config.layout, config.scheme), config.recipe(), config.scheme
    report, saving = preview(model, recipe), Saving(model)
    report = without_merged(report, {n for n in model.state_dict(keep_vars=True) if not saving.is_whole(n)})
    config.kept = kept_in_files(report, model)
    for row in report.converted:
        layout.check_sizes(scheme, row.module, model.get_parameter(f"{row.module}.weight").shape)
        low, high = torch.aminmax(model.get_parameter(f"{row.module}.weight").detach())
        check_finite_weight(f"{row.module}.weight", torch.maximum(-low, high))

    def quantized(module: Any, name: LayerName) -> StoredLinear:
        stored = to_stored(module, name, recipe, layout, config.activations, shape_in(layout, scheme, module))
        _fill(stored, module.weight.detach(), config)
        return stored

    replace_linears(model, report.converted, quantized)


def _fill(layer: StoredLinear, values: Tensor, config: OctoscaleConfig) -> None:
    """Cast a weight into a layer, and set the constant scale of its input, if any. ValueError as `set_weight`."""
    if not values.is_floating_point():
        raise UserError(f"{layer.fp8.name.module}.weight is {values.dtype}: only floating point can be quantized")
    layer.set_weight(values, config.recipe().weight)
    rule = config.recipe().input.rule
    if config.activations == "static" and isinstance(rule, Constant):
        layer._parameters[layer.fp8.layout.input_scale] = scale_parameter(2.0**-rule.bias, layer.fp8.layout)


class Casting(ConversionOps):  # type: ignore[misc]
    """From a weight to codes and scales, in the layer that waits for them."""

    def __init__(self, config: OctoscaleConfig, refusals: list[ValueError], filled: set[str]) -> None:
        self._config, self._refusals, self._filled = config, refusals, filled

    def convert(
        self,
        input_dict: dict[str, Any],
        *_: Any,
        model: PreTrainedModel | None = None,
        missing_keys: set[str] | None = None,
        **__: Any,
    ) -> dict[str, Tensor]:
        """All that the layer is to hold but the bias; see `ConversionOps`."""
        assert model is not None
        ((key, values),) = input_dict.items()
        values = values[0] if isinstance(values, list) else values
        name = key.rpartition(".")[0]
        layer = model.get_submodule(name)
        assert isinstance(layer, StoredLinear)
        try:
            _fill(layer, values, self._config)
        except ValueError as error:  # transformers would only say that there were issues, in a table
            self._refusals.append(error)
            _fill(layer, torch.zeros(values.shape), self._config)
        self._filled.add(name)
        made: dict[str, Tensor] = {
            f"{name}.{part}": layer.get_parameter(part) for part in ("weight", *layer.scale_names)
        }
        if missing_keys is not None:
            missing_keys.difference_update(made)
        return made
