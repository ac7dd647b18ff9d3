"""Write a safetensors file tensor by tensor: the library saves whole dictionaries, which large models do not fit in.

The format (github.com/huggingface/safetensors): 8 bytes, little-endian, the length of the header; the header, JSON:
name -> dtype, shape, the two offsets of its bytes behind the header; the bytes. So shapes and dtypes must be known
before the first tensor is. Reading is the library's: it maps a file into memory, and gives a tensor at a time.
"""

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from octoscale.system.errors import UserError

#: torch's dtype -> the name in the header.
DTYPE_NAMES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
_ALIGNMENT = 8  # of the bytes behind the header, which is filled up with spaces


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Dtype, by the format's name, and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """The size of its values. KeyError for a dtype that torch does not have."""
        return math.prod(self.shape) * _DTYPES[self.dtype].itemsize


@contextmanager
def writing(path: Path, entries: Mapping[str, Entry]) -> Iterator[Callable[[str, Tensor], None]]:
    """Write a file of the tensors that `entries` promises: the block calls `add(name, tensor)` in their order.

    A tensor is written while the block makes the next one, and must not change any more.
    ValueError for a tensor that is not the next one that was promised, and if some are missing in the end.
    """
    waiting = list(entries.items())
    written: Future[int] | None = None
    with path.open("wb") as file, ThreadPoolExecutor(1) as writer:
        file.write(_header(entries))

        def add(name: str, tensor: Tensor) -> None:
            nonlocal written
            expected, entry = waiting.pop(0) if waiting else ("no more", None)
            if (name, Entry(dtype=DTYPE_NAMES.get(tensor.dtype, "?"), shape=tuple(tensor.shape))) != (expected, entry):
                raise UserError(f"{path}: {name}, {tensor.dtype} {list(tensor.shape)}, but promised was {expected}")
            if written is not None:
                written.result()
            written = writer.submit(file.write, tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)

        yield add
        if written is not None:
            written.result()
    if waiting:
        raise UserError(f"{path}: {len(waiting)} tensors were promised and not written, the first {waiting[0][0]}")


def _header(entries: Mapping[str, Entry]) -> bytes:
    """Length and JSON, with the offsets of tensors that follow each other without gaps."""
    content: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, entry in entries.items():
        end = start + entry.num_bytes
        content[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text
