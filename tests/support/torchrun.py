"""`octoscale train` as its users start it: one process, or several under torchrun. For tests of many ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from checkpoints import byte_tokenizer
from models import tiny_llama

import octoscale

WORDS = "--window 16 --steps 4 --batch 2 --accumulate 2 --save-every 2 --dtype fp32 --every 0"
#: torchrun, as torch's own module: the script need not be on the path.
TORCHRUN = "-m torch.distributed.run"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
#: What a traceback of ours would name; torchrun has one of its own.
PACKAGE = str(Path(octoscale.__file__).parent)


def write_inputs(folder: Path) -> Path:
    """The model `llama`, tied and with a tokenizer of bytes, and `text.txt`; returns their folder."""
    tiny_llama(vocab_size=256, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None).save_pretrained(
        folder / "llama"
    )
    byte_tokenizer().save_pretrained(folder / "llama")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 30)
    return folder


def command(
    inputs: Path,
    out: Path,
    more: str = "",
    *,
    ranks: int | str = 1,
    text: bool = True,
    start: str = "-m octoscale",
    model: str = "llama",
) -> list[str]:
    """The command line of a training of a model of that folder. ranks: how many, or torchrun's own words."""
    launcher = f"{TORCHRUN} --standalone --nproc-per-node {ranks}" if isinstance(ranks, int) else f"{TORCHRUN} {ranks}"
    how = start if ranks == 1 else f"{launcher} {start}"
    what = f"--text {inputs / 'text.txt'}" if text else ""
    return [sys.executable, *f"{how} train {inputs / model} {what} --out {out} {WORDS} {more}".split()]


def train(inputs: Path, out: Path, more: str = "", **how: Any) -> tuple[int, str]:
    """Run the `command`; (exit code, standard error)."""
    words = command(inputs, out, more, **how)
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False)
    return done.returncode, done.stderr


def losses(run: Path) -> list[float]:
    """All losses of a run, of training and of validation, in their order."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row.get("loss", row.get("eval_loss")) for row in rows if "train_runtime" not in row]
