"""What a trained model is saved with, so that other commands, and other libraries, can give it texts.

The tokenizer's files come along as they are; a tokenizer that is no folder's is written by transformers. A size that
reads bytes gets a tokenizer whose ids are the bytes: it gives the ids of the training.
"""

import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from octoscale.checkpoints.companions import companions
from octoscale.models.loading import LoadedModel, local_folder

#: What the source's folder has of a training, of people's words about that model, and of weights beside it.
_OF_THE_SOURCE = {
    *("README.md", "generation_config.json", "adapter_config.json"),
    *("trainer_state.json", "fp8.json", "seconds.json", "run.json"),
}


def save_reader(loaded: LoadedModel, folder: Path) -> None:
    """Write what reads texts for a model to the folder of its checkpoint; nothing if it had none."""
    source = local_folder(loaded.name)
    if loaded.tokenizer is None:
        if loaded.encode is not None:
            tokenizer_of_bytes().save_pretrained(folder)
    elif source is None:
        loaded.tokenizer.save_pretrained(folder)
    else:
        _copy(source, folder)


def tokenizer_of_bytes() -> Any:
    """A tokenizer whose ids are the bytes of a text, 0 to 255, and nothing else."""
    vocabulary = {letter: byte for byte, letter in bytes_to_unicode().items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def _copy(source: Path, folder: Path) -> None:
    """Copy what is beside the weights, but for what is written anew."""
    for path in companions(source):
        place = folder / path.relative_to(source)
        if path.name not in _OF_THE_SOURCE and not place.exists():
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, place)
