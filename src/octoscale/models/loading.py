"""Where models come from. Transformers builds and loads all of them; this file only finds what to give it.

A MODEL argument is, in this order:

    smollm2-135m      a real pretrained model that needs no account and no hub (see ALIASES)
    gpt-111m          a size of the paper, with random weights (see SIZES)
    ./folder          a transformers checkpoint
    file.gguf         a GGUF file, dequantized
    org/name          an id on the Hugging Face Hub

"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from octoscale.checkpoints.announced import announce
from octoscale.checkpoints.companions import patterns_of_others
from octoscale.checkpoints.folder import check_folder, explain_config, read_config
from octoscale.checkpoints.said import understood
from octoscale.checkpoints.shards import INDEX, SINGLE, check_complete, check_shapes, find_shards
from octoscale.models.architectures import check_loaded, class_of, has_classifier, predicts_tokens, without_weights
from octoscale.models.errors import READ_ERRORS, explain
from octoscale.models.errors import ModelError as ModelError
from octoscale.models.generation_settings import check_generation_settings
from octoscale.models.package_index import ALIASES, cached_checkpoint, gguf_options
from octoscale.models.quiet import quietly
from octoscale.models.sizes import SIZES, config_of_size, sizes_with_weights
from octoscale.models.sizes import Size as Size
from octoscale.system.errors import UserError

#: Torch has one generator: two threads that draw weights at once would both get others than their seeds say.
_one_at_a_time = threading.Lock()

#: transformers adds an adapter that a folder holds to the model that it holds.
ADAPTER = "adapter_config.json"


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in eval mode, what turns texts into ids, transformers' tokenizer if it has one, and its name.

    Classifiers get special tokens with a text, all other models none.
    """

    name: str
    model: Any
    encode: Callable[[str], list[int]] | None
    note: str = ""
    tokenizer: Any = None


def load(
    spec: str,
    dtype: torch.dtype = torch.bfloat16,
    *,
    num_labels: int | None = None,
    seed: int = 0,
    fp8: Any = None,
    ranks: Any = None,
    cuts: Any = None,
) -> LoadedModel:
    """The model that `spec` means, on the CPU in `dtype`, in eval mode. ModelError if it cannot be had.

    num_labels: a classifier of so many classes, in place of a causal language model. seed: of all weights that the
    checkpoint does not hold: those of a size, and a classifier's head. fp8: an OctoscaleConfig, for
    weights in FP8 alone. ranks: a process group of torch, each of whose ranks calls this, and gets its part of the
    layers that are FP8, or could be (checkpoints/part_reader.py). cuts: of a folder that `is_read_in_parts`, parameter
    -> the part of it that is read, a `Cut`: those of a training on many ranks (distributed/read_parts.py).

    Nothing else changes: torch's generator goes on where it was, transformers logs what it logged, and its own
    from_pretrained reads FP8 checkpoints as before, unless `octoscale.hf` was imported.
    """
    from octoscale.checkpoints.part_reader import only_parts, shared_by, these
    from octoscale.checkpoints.takeover import in_force

    cut_down = these(cuts) if cuts is not None else None if ranks is None else shared_by(ranks)
    with _one_at_a_time, quietly(), in_force(), only_parts(cut_down), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _load(spec, dtype, num_labels, fp8, ranks)


def _load(spec: str, dtype: torch.dtype, num_labels: int | None, fp8: Any, ranks: Any) -> LoadedModel:
    from octoscale.checkpoints.casting import quantize_model
    from octoscale.checkpoints.part_reader import split_whole

    if spec in SIZES:
        note = f"{spec} has random weights and no tokenizer: texts are read as bytes"
        model = _random(spec, dtype, num_labels)
        if ranks is not None:
            split_whole(model, ranks)
        if fp8 is not None:
            quantize_model(model, fp8)
        return LoadedModel(name=spec, model=model, encode=_bytes_of, note=note)
    folder, options = _resolve(spec)
    if fp8 is not None and "gguf_file" not in options:
        options["quantization_config"] = fp8
    config = config_of(spec)
    try:
        if ranks is not None and (Path(folder) / ADAPTER).exists():
            raise UserError(f"{folder} holds an adapter, which is not split among ranks: load it in one process")
        loaded = _load_pretrained(spec, folder, config, dtype, options, num_labels)
        if ranks is not None:
            split_whole(loaded.model, ranks)
        if fp8 is not None and "gguf_file" in options:
            quantize_model(loaded.model, fp8)
        return loaded
    except READ_ERRORS as error:
        raise ModelError(explain(spec, error)) from error


def skeleton(spec: str) -> Any:
    """The model that `spec` means without its weights (device meta), to look at. ModelError as `load`."""
    config = config_of(spec)
    try:
        return without_weights(config)
    except Exception as error:
        if not Path(spec).is_dir():
            raise ModelError(explain(spec, error)) from error
        raise ModelError(explain_config(Path(spec), error, without_weights)) from error


def is_stored(spec: str) -> bool:
    """Whether a checkpoint says that its weights are FP8, in a form that is served. ModelError as `load`."""
    if spec in SIZES or spec in ALIASES or spec.endswith(".gguf"):
        return False
    content = getattr(config_of(spec), "quantization_config", None)
    return understood(content) is not None


def config_of(spec: str) -> Any:
    """The transformers config of the model that `spec` means. ModelError as `load`."""
    import transformers

    if spec in SIZES:
        return config_of_size(spec)
    folder, options = _resolve(spec)
    options.pop("quantization_config", None)
    try:
        if "gguf_file" in options or not Path(folder).is_dir():
            return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, **options)
        check_folder(Path(folder))
        check_generation_settings(Path(folder))
        config = read_config(Path(folder))
        announce(config, Path(folder), shards_in(Path(folder)))
        return config
    except READ_ERRORS as error:
        raise ModelError(explain(spec, error)) from error


def is_read_in_parts(spec: str) -> bool:
    """Whether a rank can read a part of each tensor: of a folder of safetensors without an adapter."""
    folder = local_folder(spec)
    return folder is not None and bool(shards_in(folder)) and not (folder / ADAPTER).exists()


def shards_in(folder: Path) -> list[Path]:
    """The safetensors files of a folder, if there are any; raises as `find_shards`."""
    return find_shards(folder) if any((folder / name).exists() for name in (SINGLE, INDEX)) else []


def check_causal(model: Any, name: str) -> None:
    """ModelError for a model that does not predict the next token: it has no perplexity, and writes no text."""
    if not predicts_tokens(model):
        also = ", and train --task makes a classifier of it" if has_classifier(model.config) else ""
        raise ModelError(
            f"{name} is a {type(model).__name__}, which does not predict the next token of a text: "
            f"octoscale inspect and quantize take it{also}"
        )


def check_tokenizer(spec: str) -> None:
    """ModelError for a folder whose tokenizer cannot be read, before its weights are."""
    from octoscale.models.tokenizer import read_tokenizer

    folder = local_folder(spec)
    if folder is not None:
        try:
            read_tokenizer(folder)
        except ValueError as error:
            raise ModelError(
                f"the tokenizer of {spec} cannot be read: {error}; without it, {spec} cannot read a text"
            ) from error


def checkpoint_folder(spec: str) -> Path:
    """The folder with the safetensors checkpoint that `spec` means, fetched if need be. ModelError if it has none."""
    if spec in SIZES or spec.endswith(".gguf"):
        raise ModelError(f"{spec} is no checkpoint of safetensors: save_pretrained one, or name a folder or hub id")
    folder, _ = _resolve(spec)
    if Path(folder).is_dir():
        return Path(folder)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(folder, ignore_patterns=patterns_of_others()))
    except READ_ERRORS as error:
        raise ModelError(explain(spec, error)) from error


def named_models() -> list[dict[str, Any]]:
    """The models that have a name: name, weights in the decoder layers' linear layers, description."""
    rows = [
        {"name": name, "linear_weights": alias.linear_weights, "description": alias.description}
        for name, alias in ALIASES.items()
    ]
    return rows + sizes_with_weights()


def local_folder(spec: str) -> Path | None:
    """The folder that `spec`, a model that was loaded, came from; None for a size, a .gguf file, or the hub."""
    if spec in SIZES or spec.endswith(".gguf"):
        return None
    folder = Path(_resolve(spec)[0])
    return folder if folder.is_dir() else None


def _resolve(spec: str) -> tuple[str, dict[str, Any]]:
    """What to give to from_pretrained: a folder or hub id, and options."""
    if spec in ALIASES:
        return str(cached_checkpoint(spec)), {}
    path = Path(spec)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"no such file: {spec}")
        return str(path.parent), gguf_options(path)
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ModelError(f"{spec} is not a checkpoint: it holds no config.json")
        return spec, {}
    if path.exists() or spec.count("/") > 1 or spec.startswith((".", "/", "~")):
        raise ModelError(f"{spec} is neither a checkpoint folder nor a .gguf file")
    if "/" not in spec:
        known = ", ".join([*ALIASES, *SIZES])
        raise ModelError(f"unknown model {spec!r}: name one of {known}, a folder, a .gguf file, or a hub id org/name")
    return spec, {}


def _load_pretrained(
    spec: str, folder: str, config: Any, dtype: torch.dtype, options: dict[str, Any], num_labels: int | None
) -> LoadedModel:
    import transformers

    from octoscale.models.tokenizer import read_tokenizer

    options["trust_remote_code"] = False
    more: dict[str, Any] = {"output_loading_info": True}
    if "gguf_file" not in options:
        more |= {"use_safetensors": True, "config": config}  # pickled weights can run code
        if Path(folder).is_dir():
            shards = find_shards(Path(folder))  # an index may name any file of the machine
            model = skeleton(spec)  # what config.json gets wrong is found, and named, before memory is taken
            check_shapes(model, shards)
            has_adapter = (Path(folder) / ADAPTER).exists()  # of which alone transformers then reports
            if has_adapter or "quantization_config" in options:  # it cannot draw codes for what is missing
                check_complete(model, shards)
    if num_labels is not None:
        cls = transformers.AutoModelForSequenceClassification
        config.num_labels = num_labels
        more |= {"num_labels": num_labels} if "config" not in more else {}
    else:
        cls = class_of(config)
    model, info = cls.from_pretrained(folder, dtype=dtype, **options, **more)
    notes = [check_loaded(model.eval(), info, config, is_new_head=num_labels is not None)]
    if getattr(config, "auto_map", None):
        notes.append(f"the code that {spec} brings was not run: transformers' own {type(model).__name__} reads it")
    options.pop("quantization_config", None)
    del options["trust_remote_code"]
    try:
        tokenizer = read_tokenizer(Path(folder), **options)
    except ValueError as error:
        notes.append(f"the tokenizer of {spec} cannot be read: {error}")
        return LoadedModel(name=spec, model=model, encode=None, note=_joined(notes))

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=num_labels is not None, verbose=False).input_ids)

    return LoadedModel(name=spec, model=model, encode=encode, tokenizer=tokenizer, note=_joined(notes))


def _joined(notes: list[str]) -> str:
    return "; ".join(note for note in notes if note)


def _random(size: str, dtype: torch.dtype, num_labels: int | None) -> Any:
    auto, more = _auto_class(num_labels)
    config = config_of_size(size)
    config.update(more)
    return auto.from_config(config, dtype=dtype).eval()


def _auto_class(num_labels: int | None) -> tuple[Any, dict[str, Any]]:
    """The class of transformers that builds the model, and options for its config."""
    import transformers

    if num_labels is None:
        return transformers.AutoModelForCausalLM, {}
    return transformers.AutoModelForSequenceClassification, {"num_labels": num_labels}


def _bytes_of(text: str) -> list[int]:
    return list(text.encode())
