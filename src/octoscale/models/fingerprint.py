"""Which model it is: a short text that others do not have, be it their weights or their config, wherever read from.

    fingerprint(model)        "9f3c27d1a0b4e655"

Results that are kept are for this model and no other (runs/cells.py).
"""

import hashlib
import json

import torch
from torch import nn

#: Of a config: where it was read from, and by what; and what saving writes into it.
_NO_PART_OF_IT = ("_name_or_path", "transformers_version", "architectures", "dtype")


def fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits of the names, dtypes, shapes and bytes of a state dict, and of the config if there is one.

    Reads every byte once, about a second a GB. NaN, -0 and their like count as the bits that they are.
    """
    digest = hashlib.blake2b(digest_size=8)
    config = getattr(model, "config", None)
    if config is not None:
        content = {name: value for name, value in config.to_dict().items() if name not in _NO_PART_OF_IT}
        digest.update(json.dumps(content, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()
