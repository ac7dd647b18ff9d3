"""Which weights a model has: a short text that other weights do not have, wherever they were read from.

    fingerprint(model)        "9f3c27d1a0b4e655"

Results that are kept are for these weights and no others (runs/cells.py).
"""

import hashlib

import torch
from torch import nn


def fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits of the names, dtypes, shapes and bytes of all parameters and buffers of a state dict.

    Reads every byte once, about a second a GB. NaN, -0 and their like count as the bits that they are.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()
