"""Quantize a checkpoint on disk: weights of linear layers to FP8 codes and a scale, all else as it is.

    quantize_checkpoint(Path("llama"), Path("llama-fp8"), Recipe.amax())

It goes shard by shard and tensor by tensor, so that memory holds one tensor, whatever the size of the model. Shards are
written into a hidden folder beside `out`, which takes its name when all is there; a run that was stopped can go on.
Which weights become FP8 is what `convert` would do with the model; the codes and scales are the same, bit for bit.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from octoscale.checkpoints.companions import companions
from octoscale.checkpoints.folder import read_object
from octoscale.checkpoints.headers import name_of_scale, read_entries
from octoscale.checkpoints.shards import INDEX, SINGLE, check_complete, find_shards, weights_in
from octoscale.checkpoints.writer import Entry, writing
from octoscale.conversion.convert import ConversionReport
from octoscale.conversion.ignore import ignored
from octoscale.kernels import ops
from octoscale.layers.layouts import OWN_KEY, Layout
from octoscale.layers.origin import is_conv1d
from octoscale.layers.schemes import STORED_FORMAT, Scheme, all_linears, check_stored_formats, check_written
from octoscale.layers.stored import check_finite_weight, scales_of
from octoscale.numerics.granularity import TENSOR, along
from octoscale.numerics.recipe import Operand, Recipe
from octoscale.numerics.scaling import Constant
from octoscale.system.errors import UserError
from octoscale.system.lock import exclusive
from octoscale.system.manifest import write_manifest
from octoscale.system.terms import FILES, begin_or_resume, check_unchanged, state_of
from octoscale.system.whole_file import replacing, write_json
from octoscale.system.whole_folder import (
    BEGUN,
    CHECKPOINT,
    check_free,
    discard,
    end_exchange,
    hidden_beside,
    put_in_place,
    target,
)

#: Layers that others fuse into one product, by the last part of their names: with one scale, that loses nothing.
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))

#: Called with the bytes done and the bytes in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Export:
    """How to write a checkpoint: scaling, layout, what becomes of activations, their static scale_bias by module."""

    recipe: Recipe
    layout: Layout
    activations: str = "dynamic"
    input_bias: Mapping[str, int] | None = None
    tie_fused: bool = False

    @property
    def scheme(self) -> Scheme:
        """What the checkpoint says of each layer."""
        return Scheme.of(self.recipe, self.activations)

    def __post_init__(self) -> None:
        scheme = self.scheme
        check_written(scheme)
        if scheme.weight != TENSOR.name and self.tie_fused:
            raise UserError(f"--tie-fused is for one scale a tensor: scales by {scheme.weight} lose nothing when fused")
        check_stored_formats(self.recipe)
        if (self.activations == "static") != (self.input_bias is not None):
            raise UserError("static activations, and only those, need a scale_bias for each layer's input")


def quantize_checkpoint(
    source: Path,
    out: Path,
    model: Any,
    report: ConversionReport,
    export: Export,
    *,
    state: Mapping[str, list[int]],
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Write the checkpoint in folder `source` to the new folder `out`, in FP8 where `report` converts.

    model: of transformers, without weights (device meta), that the report is of. state: what `state_of_source` said
    before anything was read.
    Returns the tensors that were copied and hold infinity or NaN. Memory: one tensor and its codes.
    FileExistsError if `out` exists (overwrite: unless octoscale wrote all of it), or is being written;
    FileNotFoundError if `source` holds no safetensors; ValueError if it is in FP8 already, lacks a tensor of
    the model, has a weight that is not finite, or changes meanwhile: then nothing stays.
    """
    source, out_folder = source.resolve(), target(out)
    with exclusive(out_folder):
        end_exchange(out_folder)
        check_out(source, out, overwrite=overwrite)
        hidden, shards = hidden_beside(out_folder), find_shards(source)
        check_complete(model, shards)
        job = _job(weights_in(report, model, shards), model, export)
        for module in job.weights.values():
            export.layout.check_sizes(export.scheme, module, model.get_submodule(module).weight.shape)
        terms = {**_terms(source, report, export), FILES: state}
        begin_or_resume(hidden, terms, resume=resume)
        try:
            _write_shards(shards, hidden, job, progress)
            _write_rest(source, hidden, shards, report, job)
            check_unchanged(state, state_of_source(source))
        except ValueError:  # to go on would end in the same way
            discard(hidden)
            raise
        check_out(source, out, overwrite=overwrite)  # once more: others than octoscale know nothing of the lock
        (hidden / BEGUN).unlink()
        put_in_place(hidden, out_folder)
    return sorted(name for shard in shards for name in _not_finite(shard, job.weights))


def check_out(source: Path, out: Path, *, overwrite: bool) -> None:
    """ValueError or FileExistsError if `out` cannot, or may not, be written from `source`."""
    if (source / "adapter_config.json").exists():
        raise UserError(f"{source} holds an adapter (adapter_config.json): merge it into its base, and save that")
    if out.resolve() == source.resolve():
        raise UserError(f"{out} is the checkpoint that is read: choose another folder")
    check_free(target(out), overwrite=overwrite)


def state_of_source(source: Path) -> dict[str, list[int]]:
    """In which state all files of `source` are that go into the result."""
    folder = source.resolve()
    return state_of([*find_shards(folder), folder / "config.json", *companions(folder)])


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What is to be done: name of a tensor -> the module whose weight it is; which of them lie [in, out]; and how."""

    weights: Mapping[str, str]
    turned: frozenset[str]
    export: Export

    def sizes(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Outputs and inputs of a weight of that shape."""
        return shape[::-1] if name in self.turned else shape


def _job(weights: Mapping[str, str], model: Any, export: Export) -> _Job:
    turned = frozenset(name for name, module in weights.items() if is_conv1d(model.get_submodule(module)))
    return _Job(weights=weights, turned=turned, export=export)


def _write_shards(shards: list[Path], hidden: Path, job: _Job, progress: Progress | None) -> None:
    """The shards that are not there yet."""
    biases = _tied_biases(job.weights, shards, job.export.recipe.weight) if job.export.tie_fused else {}
    total, done = sum(path.stat().st_size for path in shards), 0
    for shard in shards:
        if not (hidden / shard.name).exists():
            with replacing(hidden / shard.name) as temporary:
                _write_shard(shard, temporary, job, biases)
        done += shard.stat().st_size
        if progress is not None:
            progress(done, total)


def _terms(source: Path, report: ConversionReport, export: Export) -> dict[str, Any]:
    """All that decides what is written, but for the files that are read."""
    return {
        "octoscale": version("octoscale"),
        "report": report.to_json(),
        "layout": export.layout.name,
        "activations": export.activations,
        "input_bias": None if export.input_bias is None else dict(export.input_bias),
        "tie_fused": export.tie_fused,
        "source": str(source.resolve()),
    }


def _write_shard(shard: Path, path: Path, job: _Job, biases: Mapping[str, int]) -> None:
    entries: dict[str, Entry] = {}
    before = read_entries(shard)
    for name, entry in before.items():
        entries |= _planned(name, entry, job)
    with safe_open(shard, framework="pt") as file, writing(path, entries) as add:
        for name in before:
            tensor = file.get_tensor(name)
            if name not in job.weights:
                add(name, tensor)
                continue
            for key, value in _quantized(name, tensor, job, biases):
                add(key, value)


def _planned(name: str, entry: Entry, job: _Job) -> dict[str, Entry]:
    """The tensors that one tensor becomes."""
    if name not in job.weights:
        return {name: entry}
    layout, scheme = job.export.layout, job.export.scheme
    shape = layout.shape_of(scheme, *job.sizes(name, entry.shape))
    made = {name: Entry(dtype="F8_E4M3", shape=entry.shape)}
    made[name_of_scale(name, layout.weight_scale)] = Entry(dtype="F32", shape=shape)
    if scheme.activations == "static":
        made[name_of_scale(name, layout.input_scale)] = Entry(dtype="F32", shape=layout.scale_shape)
    return made


def _quantized(name: str, tensor: Tensor, job: _Job, biases: Mapping[str, int]) -> Iterator[tuple[str, Tensor]]:
    """Codes, scale of the weight, and the scale of the input if it is static, with their names."""
    export = job.export
    if tensor.dtype not in ops.DTYPES:
        raise UserError(f"{name} is {tensor.dtype}: only float32, bfloat16 and float16 weights can be quantized")
    rule = Constant(biases[name]) if name in biases else export.recipe.weight.rule
    is_turned = name in job.turned
    granularity = along(rule.granularity, "weight", sum_first=is_turned)
    cast = ops.quantize(tensor, STORED_FORMAT, rule, granularity=granularity)
    assert cast.observed is not None
    check_finite_weight(name, cast.observed.amax)
    layout = export.layout
    yield name, cast.codes
    yield name_of_scale(name, layout.weight_scale), scales_of(cast, layout, is_conv1d=is_turned)
    if export.input_bias is not None:
        scale = 2.0 ** -export.input_bias[job.weights[name]]
        yield name_of_scale(name, layout.input_scale), torch.full(layout.scale_shape, scale, dtype=torch.float32)


def _tied_biases(weights: Mapping[str, str], shards: list[Path], operand: Operand) -> dict[str, int]:
    """For each weight, the smallest scale_bias of those that others fuse with it: the one that saturates none.

    A weight of zeros fits any scale, and has no voice.
    """
    own: dict[str, int | None] = {}
    for shard in shards:
        with safe_open(shard, framework="pt") as file:
            for name in set(weights) & set(file.keys()):
                cast = ops.quantize(file.get_tensor(name), STORED_FORMAT, operand.rule)
                assert cast.observed is not None
                check_finite_weight(name, cast.observed.amax)
                own[name] = int(cast.scale_bias) if cast.observed.amax > 0 else None
    tied: dict[str, int] = {}
    for name in own:
        voices = [bias for other in _fused_with(name) if (bias := own.get(other)) is not None]
        tied[name] = min(voices, default=0)
    return tied


def _not_finite(shard: Path, weights: Mapping[str, str]) -> Iterator[str]:
    """The tensors of a shard that are copied, and hold infinity or NaN: a mask may; a norm's weight ends in NaN."""
    with safe_open(shard, framework="pt") as file:
        for name in set(file.keys()) - set(weights):
            tensor = file.get_tensor(name)
            is_float = tensor.is_floating_point() and tensor.element_size() > 1
            if is_float and tensor.numel() and not all(x.isfinite() for x in torch.aminmax(tensor)):
                yield name


def _fused_with(name: str) -> list[str]:
    """The names of the weights that become one product with this one, itself included."""
    module = name.removesuffix(".weight")
    parent, _, leaf = module.rpartition(".")
    group = next((group for group in FUSED if leaf in group), (leaf,))
    return [f"{parent}.{other}.weight" for other in group]


def _write_rest(
    source: Path,
    hidden: Path,
    shards: list[Path],
    report: ConversionReport,
    job: _Job,
) -> None:
    """Config, index and the small files: tokenizer, generation config, templates."""
    config, export = read_object(source / "config.json"), job.export
    kept = ignored(report, {n: e.shape for shard in shards for n, e in read_entries(shard).items()}, job.weights)
    config["quantization_config"] = export.layout.config(kept, all_linears(export.scheme))
    config[OWN_KEY] = {
        "scaling": export.recipe.name,
        "activations": export.activations,
        "layout": export.layout.name,
        "tie_fused": export.tie_fused,
    }
    for path in companions(source):
        copy = hidden / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
    write_json(hidden / "config.json", config)
    if shards != [source / SINGLE]:
        entries = {shard: read_entries(hidden / shard.name) for shard in shards}
        size = sum(entry.num_bytes for of_shard in entries.values() for entry in of_shard.values())
        names = {name: shard.name for shard, of_shard in entries.items() for name in of_shard}
        write_json(hidden / INDEX, {"metadata": {"total_size": size}, "weight_map": names})
    write_manifest(hidden, CHECKPOINT, without=[BEGUN])
