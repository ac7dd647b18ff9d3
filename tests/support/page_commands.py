"""The commands that the pages show, as something to run: collected from blocks of code, with what is said of them.

A comment before a block says how its commands are tested; behind the mode stand words of those commands that it is
for, if not all:

    <!-- test: slow -->                          run with ./dev test --slow
    <!-- test: parse watch chat: they wait -->   not run, and why; tests/house/test_site.py still reads their words
    <!-- test: output -->                        what follows is a block: lines that the commands before it print
    <!-- test page: parse: they take hours -->   all commands of a page for which no block has a mark

All others are run by ./dev test, in the order of the page, in a folder with small stand-ins for what is the reader's.
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from octoscale.models.materialize import byte_tokenizer

ROOT = Path(__file__).resolve().parents[2]
#: With commands that are to be run; the log has those of older versions, too.
PAGES = ["README.md", "experiments/README.md"]
PAGES += [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md")) if path.name != "LOG.md"]

LAUNCHED = re.compile(r"(?:[A-Z_]+=\S+ )*(octoscale|\./dev|torchrun|accelerate|srun|sbatch|python|vllm|lm_eval|pip) ")
MARK = re.compile(r"<!-- test: (slow|parse|output)((?: [\w,-]+)*)(?:: ([^>]+))? -->")
PAGE_MARK = re.compile(r"^<!-- test page: (slow|parse)(?:: ([^>]+))? -->$", re.MULTILINE)
#: The first block of code is indented, the second fenced.
BLOCK = re.compile(
    r"((?:^<!-- test: .*-->\n)*)\n?((?:^ {4}.*\n?)+)|((?:^<!-- test: .*-->\n)*)^```(\w*)\n((?:^(?!```).*\n)*)^```$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Command:
    """A command of a page. mode: run, slow or parse; reason: of what is only parsed."""

    text: str
    mode: str
    reason: str = ""


@dataclass(frozen=True)
class Output:
    """Lines that the commands before it print, however wide the terminal."""

    lines: tuple[str, ...]


def steps_of(text: str) -> Iterator[Command | Output]:
    """The commands of a page, and what they are said to print, in order; of alternatives the first."""
    of_page = [(mode, "", reason) for mode, reason in PAGE_MARK.findall(text)]
    for found in BLOCK.finditer(text):
        marks = MARK.findall(found[1] or found[3] or "") + of_page
        lines = (found[2] or found[5] or "").replace("\\\n", " ").splitlines()
        if any(mode == "output" for mode, _, _ in marks):
            yield Output(tuple(line for line in map(str.strip, lines) if line))
            continue
        for line in map(str.strip, lines):
            if LAUNCHED.match(line) and found[4] in (None, "", "sh", "console"):
                yield _command(re.sub(r"\|(?:\"[^\"]*\"|\S)+", "", line), marks)


def _command(line: str, marks: Sequence[tuple[str, str, str]]) -> Command:
    """A line with the mark that is for it: one that names a word of it before one for all."""
    words = shlex.split(line, comments=True)
    for mode, names, reason in sorted(marks, key=lambda mark: not mark[1]):
        if not names or set(names.split()) & set(words):
            return Command(line, mode, reason)
    return Command(line, "run")


def steps_of_page(page: str) -> list[Command | Output]:
    """The same of a page by its name."""
    return [*steps_of((ROOT / page).read_text(encoding="utf-8"))]


#: Not above so much, so that a tiny model is through in seconds: options that cost time, and change no other word.
AT_MOST = {"--tokens": 512, "--window": 128, "--steps": 2, "--train": 2, "--warmup": 1, "--examples": 16}
AT_MOST |= {"--keep-at-most": 3}
#: Where an option is not given and its default is of a real model's size.
ADDED = {
    "train": {"--steps": "2", "--window": "64"},
    "validate": {"--tokens": "512", "--window": "128"},
    "sweep": {"--tokens": "512", "--window": "128"},
    "advise": {"--tokens": "512", "--window": "128", "--keep-at-most": "3"},
    "parity": {"--tokens": "512", "--window": "128"},
    "arena": {"--window": "128"},
}


def smaller(words: Sequence[str]) -> list[str]:
    """The words of a command with less to do."""
    words = [*words]
    for place, word in enumerate(words[:-1]):
        if word in AT_MOST:
            words[place + 1] = str(min(int(words[place + 1]), AT_MOST[word]))
        elif word == "--seeds":
            words[place + 1] = ",".join(words[place + 1].split(",")[:2])
    name = words[words.index("octoscale") + 1]
    no_text = name != "train" and {"--task", "--tasks"} & {*words}
    for option, value in ({} if no_text else ADDED.get(name, {})).items():
        words += [] if option in words else [option, value]
    return ["MODEL" if word in ("smollm2-135m", "gpt-10m") else word for word in words]


SENTENCES = "The quick brown fox jumps over the lazy dog, and a small model reads of it, byte by byte. "


def make_world(folder: Path) -> Path:
    """What the pages call the reader's: models, texts, a task and a recipe, each as small as can be."""
    folder.mkdir(exist_ok=True)
    for name in ("MODEL", "ORIGINAL"):
        save_model(folder / name)
    for name in ("my.txt", "other.txt", "input.txt"):
        (folder / name).write_text(SENTENCES * 60)
    question = {"query": "The quick brown fox", "choices": [" jumps", " sleeps"], "gold": 0}
    lines = "".join(json.dumps(question | {"gold": number % 2}) + "\n" for number in range(8))
    (folder / "my.jsonl").write_text(lines)
    labelled = "label\tsentence\n" + "".join(f"{n % 2}\t{('good', 'bad')[n % 2]} film {n}\n" for n in range(24))
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).write_text(labelled)
    (folder / "FOLDER").mkdir()
    (folder / "FOLDER" / "piqa.jsonl").write_text(lines)
    recipe = 'scaling = "amax"\nformats = "ocp"\nskip = ["layers.11.mlp.down_proj"]\n'
    (folder / "my.toml").write_text(recipe)
    return folder


def save_model(folder: Path) -> None:
    """A random Llama of twelve narrow layers in bfloat16 that reads 4,096 bytes."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    ends = {"bos_token_id": None, "eos_token_id": None}
    config = LlamaConfig(vocab_size=256, num_hidden_layers=12, max_position_embeddings=4096, **shape, **ends)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
