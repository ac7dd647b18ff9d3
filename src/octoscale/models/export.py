"""Carry out the command quantize: find the model, choose the scales of activations, write the checkpoint."""

from pathlib import Path
from typing import Any

from octoscale.checkpoints.calibrate import calibrate
from octoscale.checkpoints.quantize import Export, Progress, check_out, quantize_checkpoint, state_of_source
from octoscale.checkpoints.settings import Quantization
from octoscale.checkpoints.shards import check_shapes, find_shards, report_for_files, surplus_in
from octoscale.conversion.convert import ConversionReport, preview
from octoscale.layers.layouts import layout_for
from octoscale.layers.schemes import Scheme
from octoscale.models import loading, texts
from octoscale.models.quiet import quietly
from octoscale.numerics.granularity import BLOCK, BLOCK_SIDE
from octoscale.numerics.recipe import Recipe
from octoscale.numerics.scaling import Constant
from octoscale.system.errors import UserError


@quietly()
def run_quantization(
    words: Quantization,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the FP8 checkpoint to `out`; returns what was done: layers, bytes before and after.

    Raises ValueError or OSError, naming the remedy, for anything that cannot be had; then there is no `out`.
    """
    if resume and overwrite:
        raise UserError("--resume goes on with what a stopped run left, --overwrite begins again: choose one of them")
    recipe = words.parsed()
    layout = layout_for(words.layout, Scheme.of(recipe, words.activations))
    source = loading.checkpoint_folder(words.model)
    if loading.is_stored(words.model):
        raise UserError(f"{words.model} holds FP8 weights with their scales already: quantize what it was made from")
    check_out(source, out, overwrite=overwrite)
    state = state_of_source(source)
    model = loading.skeleton(words.model)
    shards = find_shards(source)
    check_shapes(model, shards)
    report = report_for_files(preview(model, recipe), model, shards)
    if not report.converted:
        raise UserError(f"{words.model}: no weight that could be FP8 lies in its files as the model has it")
    export = Export(
        recipe=recipe,
        layout=layout,
        activations=words.activations,
        input_bias=_input_bias(words, recipe) if words.activations == "static" else None,
        tie_fused=words.tie_fused,
    )
    options = {"resume": resume, "overwrite": overwrite}
    not_finite = quantize_checkpoint(source, out, model, report, export, state=state, **options, progress=progress)
    done = _summary(words, export, report, source, out) | _ragged(export, report, model)
    surplus = surplus_in(model, shards)
    done |= {"copied_with_infinity_or_nan": not_finite} if not_finite else {}
    return done | ({"copied_and_no_part_of_the_model": surplus} if surplus else {})


def _input_bias(words: Quantization, recipe: Recipe) -> dict[str, int]:
    """A static scale for each layer: the constant, or what a text calls for."""
    if isinstance(recipe.input.rule, Constant):
        report = preview(loading.skeleton(words.model), recipe)
        return {row.module: recipe.input.rule.bias for row in report.converted}
    text = texts.read_text(words.calibrate)
    loaded = loading.load(words.model)
    loading.check_causal(loaded.model, words.model)
    if loaded.encode is None:
        raise UserError(f"{loaded.note}; without it, {words.model} cannot read a calibration text")
    texts.check_window(words.window, loaded.model)
    window, source = words.window, str(words.calibrate)
    windows = texts.token_windows(text, loaded.encode, window=window, num_tokens=words.tokens, source=source)
    texts.check_ids(windows, loaded.model)
    return calibrate(loaded.model, windows, recipe)


def _summary(words: Quantization, export: Export, report: ConversionReport, source: Path, out: Path) -> dict[str, Any]:
    return {
        "model": words.model,
        "scaling": export.recipe.name,
        "layout": export.layout.name,
        "activations": words.activations,
        "layers": len(report.converted),
        "bytes_before": _size(source),
        "bytes_after": _size(out),
        "folder": str(out),
    }


def _ragged(export: Export, report: ConversionReport, model: Any) -> dict[str, str]:
    """A note of blocks that are not whole, which not every reader takes."""
    shapes = {row.module: model.get_submodule(row.module).weight.shape for row in report.converted}
    ragged = [module for module, shape in shapes.items() if any(size % BLOCK_SIDE for size in shape)]
    if export.scheme.weight != BLOCK.name or not ragged:
        return {}
    return {"blocks_that_are_not_whole": f"{len(ragged)} layers, the first {ragged[0]}: vLLM refuses them"}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
