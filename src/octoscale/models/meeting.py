"""What ranks do before they load one model together, each its part: meet, and see that they are of one mind.

    group = meet("my-llama-fp8", parallel=None, words=asdict(settings))       None for one process alone

They have to be given the same words and versions, and to see the same files. Of a large file each rank looks at its
size, its beginning and pieces of the rest: that tells models apart, and reads next to nothing.
"""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from octoscale.checkpoints.folder import CONFIG, GENERATION_CONFIG
from octoscale.checkpoints.headers import read_entries
from octoscale.checkpoints.shards import INDEX
from octoscale.distributed.mesh import Parallel, agree, explained, join, together
from octoscale.models import loading
from octoscale.system.errors import UserError
from octoscale.system.ranks import num_ranks

#: Of a file that is larger than all of them, so many pieces of so many bytes are read.
_PIECES, _BYTES = 64, 1 << 14


def meet(model: str, *, parallel: str | None, words: Mapping[str, Any]) -> dist.ProcessGroup | None:
    """The group of all ranks, which split each product; None for one process alone.

    UserError on every rank for a mesh that is another than tensor parallel over all of them, for ranks that say
    different things, and for what one of them does not find.
    """
    size = num_ranks()
    mesh = Parallel.parse(f"tp={size}" if parallel is None else parallel, size)
    if mesh.tp != size:
        raise UserError(f"--parallel {parallel}: in inference all ranks share each product: --parallel tp={size}")
    if size == 1:
        return None
    with explained():
        join()
        versions = {f"version of {name}": version(name) for name in ("octoscale", "transformers", "tokenizers")}
        said = {name: str(value) for name, value in words.items()}
        agree({**said, **versions, "version of torch": str(torch.__version__)})
        agree(together(lambda: files_of(model)))
    return dist.group.WORLD


def files_of(model: str) -> dict[str, str]:
    """The config of a model, and what tells its files apart. ModelError for a shard that is missing or damaged."""
    config, folder = loading.config_of(model), loading.local_folder(model)
    if folder is None:
        said = {f"config of {model}": hashlib.blake2b(config.to_json_string().encode(), digest_size=8).hexdigest()}
        return {**said, model: _look(Path(model))} if Path(model).is_file() else said
    shards = loading.shards_in(folder)
    for shard in shards:
        read_entries(shard)
    others = [folder / name for name in (CONFIG, GENERATION_CONFIG, INDEX)] + sorted(folder.glob("*token*"))
    return {f"{path.name} of {model}": _look(path) for path in [*others, *shards] if path.is_file()}


def _look(path: Path) -> str:
    """The size of a file, and a digest of pieces of it, of all where it is small."""
    size, digest = path.stat().st_size, hashlib.blake2b(digest_size=8)
    step = max(_BYTES, size // _PIECES)
    with path.open("rb") as file:
        for start in range(0, size, step):
            file.seek(start)
            digest.update(file.read(_BYTES))
    return f"{size:,} bytes ({digest.hexdigest()})"
