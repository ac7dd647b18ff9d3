"""Numbers that no change of the code's structure may change, written down: python tests/golden/record.py

Perplexities of the quick demo, losses of two trainings, tokens and logits of quantized models that write, the bytes of
each layout's checkpoint, and the figures. All through the command line, so that nothing here knows a module's place.

They are those of one machine: sums differ in their order between instruction sets, numbers of threads and versions of
torch. A file is named after what they depend on, and the test (test_golden.py) skips where there is none.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from octoscale import load

HERE = Path(__file__).parent
LAYOUTS = ("compressed-tensors", "hf-fp8", "vllm-fp8")
#: As stories260K is, and a GPT-2 of its size.
MODELS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=172,
            num_hidden_layers=5,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=512,
        )
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=512, n_embd=64, n_layer=5, n_head=8, n_positions=512)
    ),
}


def octoscale(*words: object) -> str:
    """What a command prints; its own process."""
    command = [Path(sys.executable).with_name("octoscale"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    found = json.loads(octoscale("info", "--json"))
    names = ("cpu", "threads", "backend", "instruction_sets", "torch", "python")
    return {name: found[name] for name in names} | {"transformers": transformers.__version__}


def golden_file() -> Path:
    """Where this machine's numbers stand, or would."""
    digest = hashlib.sha256(json.dumps(machine(), sort_keys=True).encode()).hexdigest()
    return HERE / f"{digest[:12]}.json"


def measure(folder: Path) -> dict[str, Any]:
    """All numbers; `folder` is an empty one to work in."""
    text = folder / "text.txt"
    text.write_text(words(4000))
    demo = json.loads(octoscale("demo", "--quick", "--out", folder / "demo", "--json"))
    found: dict[str, Any] = {"perplexities of the demo": demo["perplexity"]}
    for scaling in ("amax", "delayed"):
        run = folder / scaling
        size = ("--steps", 30, "--window", 64, "--batch", 2, "--save-every", 0, "--text", text)
        octoscale("train", "gpt-10m", "--scaling", scaling, *size, "--out", run)
        octoscale("report", run)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found[f"losses of gpt-10m, {scaling}"] = [row["loss"] for row in rows if "loss" in row]
    for name, make in MODELS.items():
        torch.manual_seed(0)
        make().bfloat16().save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
        for layout in LAYOUTS:
            out = folder / f"{name}-{layout}"
            octoscale("quantize", folder / name, out, "--layout", layout)
            found[f"bytes of {name}, {layout}"] = digest(out / "model.safetensors")
        found[f"what {name} writes"] = writes(folder / f"{name}-{LAYOUTS[0]}", folder / name, text)
    found["figures"] = {
        f"{run}/{path.name}": digest(path)
        for run in ("demo", "amax", "delayed")
        for path in sorted((folder / run / "figures").glob("*.svg"))
    }
    return found


def writes(quantized: Path, original: Path, text: Path) -> dict[str, Any]:
    """The text of 64 tokens of a quantized checkpoint, and the records of one that is validated: scales and counts."""
    prompt = ("--prompt", "the quick brown fox", "--max-new-tokens", 64, "--json")
    found = {"text": json.loads(octoscale("generate", quantized, *prompt))["text"]}
    run = quantized.with_name(f"{original.name}-run")
    size = ("--text", text, "--window", 64, "--tokens", 512, "--out", run)
    done = json.loads(octoscale("validate", quantized, *size, "--json"))
    found["perplexity"] = done["perplexity"]
    with torch.no_grad():
        logits = load(str(quantized)).model(torch.arange(64)[None]).logits
    found["logits"] = hashlib.sha256(logits.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
    return found


def words(count: int) -> str:
    """Words of three letters, some often and some seldom."""
    draw = random.Random(0)
    known = ["".join(draw.choices("abcdefghijklmnop", k=3)) for _ in range(100)]
    return " ".join(draw.choices(known, [1 / (1 + i) for i in range(100)], k=count))


def tokenizer() -> Any:
    """Bytes."""
    import tokenizers

    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Write the file of this machine."""
    os.environ.pop("OMP_NUM_THREADS", None)
    with tempfile.TemporaryDirectory() as folder:
        content = {"machine": machine(), "numbers": measure(Path(folder))}
    golden_file().write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
