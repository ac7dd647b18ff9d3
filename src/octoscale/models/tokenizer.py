"""The tokenizer of a checkpoint folder, read with care: what is wrong names the file, and the key where it is one."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers.convert_slow_tokenizer import bytes_to_unicode

from octoscale.checkpoints.folder import blamed, explain, read_object
from octoscale.system.errors import UserError

TOKENIZER = "tokenizer.json"

#: Small files of a tokenizer whose values transformers takes over.
_WORDS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json")


def read_tokenizer(folder: Path, **options: Any) -> Any:
    """Transformers' tokenizer, tried on a few letters. ValueError if it cannot be had; its code is never run."""
    try:
        return _read(folder, **options)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise UserError(_explain(folder, error)) from error


def raw_byte_tokenizer() -> Any:
    """A tokenizer whose tokens are the bytes of UTF-8, for models without one: ids 0 to 255."""
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    tokenizer = Tokenizer(BPE(vocab=byte_of, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=bytes_to_unicode()[0])


def _read(folder: Path, **options: Any) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
    ids = tokenizer("a b", verbose=False).input_ids
    tokenizer.decode(ids, skip_special_tokens=True)
    return tokenizer


def _explain(folder: Path, error: BaseException) -> str:
    if "trust_remote_code" in str(error):
        return f"{folder}: it needs code of the folder's own, which is never run"
    if (folder / TOKENIZER).is_file():
        try:
            Tokenizer.from_file(str(folder / TOKENIZER))
        except BaseException as inner:  # noqa: BLE001
            return explain(folder / TOKENIZER, {}, (), inner)
    for name in _WORDS:
        if (folder / name).is_file():
            try:
                content = read_object(folder / name)
            except ValueError as inner:
                return str(inner)
            if way := blamed(content, lambda changed, name=name: _works(folder, name, changed), str(error)):  # type: ignore[misc]
                return explain(folder / name, content, way, error)
    return explain(folder / TOKENIZER, {}, (), error)


def _works(folder: Path, name: str, content: Mapping[str, Any]) -> bool:
    """Whether the tokenizer can be read with other words in one of its files."""
    with tempfile.TemporaryDirectory() as changed:
        for path in folder.iterdir():
            if path.is_file() and path.name != name:
                (Path(changed) / path.name).symlink_to(path.resolve())
        (Path(changed) / name).write_text(json.dumps(content), encoding="utf-8")
        try:
            _read(Path(changed))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001
            return False
    return True
