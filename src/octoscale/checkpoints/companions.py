"""What comes along with the weights of a checkpoint: tokenizer, processor, templates, generation config, words.

Whatever a folder holds is taken along, but for weights in any form, what describes such files, hidden files, and code:
so a tokenizer of a kind that nobody thought of is not lost. Of its folders, those come along in which transformers
keeps templates, and tokenizers or processors that are parts of a processor.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from octoscale.system.manifest import MANIFEST

#: Endings of files of weights, and of what else a training leaves; pickles and code could run.
WEIGHT_ENDINGS = (
    *("safetensors", "bin", "pt", "pth", "ckpt", "gguf", "ggml", "onnx", "onnx_data", "h5", "keras", "msgpack", "ot"),
    *("npy", "npz", "tflite", "mlmodel", "pdparams", "nemo", "engine", "pkl", "pickle", "py"),
)

_WEIGHTS = re.compile(rf".*\.({'|'.join(WEIGHT_ENDINGS)})(\.index\.json)?", re.IGNORECASE)

#: Written anew, or of another quantization.
_REPLACED = ("config.json", "hf_quant_config.json", MANIFEST)

_TEMPLATES = "additional_chat_templates"
_PARTS = ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json")


def companions(source: Path) -> Iterator[Path]:
    """The files that come along, in a fixed order; links are followed to files, and to no folder."""
    folders = [path for path in sorted(source.iterdir()) if path.is_dir() and not path.is_symlink()]
    for folder in (source, *(path for path in folders if _is_part(path))):
        yield from (path for path in sorted(folder.iterdir()) if path.is_file() and _comes_along(path.name))


def patterns_of_others() -> list[str]:
    """What is not to be fetched from the hub, as its own patterns: weights that are not safetensors, and code."""
    return [f"*.{ending}" for ending in WEIGHT_ENDINGS if ending != "safetensors"]


def _comes_along(name: str) -> bool:
    return not (name.startswith(".") or _WEIGHTS.fullmatch(name) or name in _REPLACED)


def _is_part(folder: Path) -> bool:
    """Whether a folder holds templates, or a tokenizer or processor without a model of its own."""
    names = {path.name for path in folder.iterdir()}
    has_weights = any(_WEIGHTS.fullmatch(name) for name in names)
    return folder.name == _TEMPLATES or (bool(names & set(_PARTS)) and not has_weights)
