"""Does the model itself, before anything of it is FP8, give a loss for what it is to be trained on?

Asked once, before a run begins: a model that wants pictures, that misses an id in its config, or whose code does not
compute under autocast ends in one line, and nothing is written. A model that makes parts of itself in its first call
(BigBird takes another attention for short texts, and draws weights for it) has done so before a resumed run puts back
its random state.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from octoscale.layers.bf16_gemm import bf16_through_float32
from octoscale.models.loading import ModelError
from octoscale.system.printable import first_line

#: What activations are in; parameters stay float32.
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def check_first_batch(name: str, model: Any, batch: Mapping[str, Tensor], dtype: str) -> None:
    """ModelError if the model gives no loss for a batch in `dtype`, a word of training.TRAINING_DTYPES."""
    trouble = _trouble(model, batch, dtype)
    if trouble is None:
        return
    if dtype in _AUTOCAST and _trouble(model, batch, "fp32") is None:
        raise ModelError(
            f"{type(model).__name__} does not compute in {dtype}: {trouble}; train {name} with --dtype fp32"
        )
    raise ModelError(f"{name} is a {type(model).__name__}, which does not learn from such texts: {trouble}")


def _trouble(model: Any, batch: Mapping[str, Tensor], dtype: str) -> str | None:
    """What the model says to a batch in place of a loss; it stays in its mode, and so do random numbers."""
    device, training = model.device, model.training
    autocast = torch.autocast(device.type, _AUTOCAST[dtype]) if dtype in _AUTOCAST else nullcontext()
    try:
        with torch.no_grad(), torch.random.fork_rng(), bf16_through_float32(model), autocast:
            outputs = model.eval()(**{key: x.to(device) for key, x in batch.items()})
    except Exception as error:  # noqa: BLE001  whatever a model's own code raises
        return f"{type(error).__name__}: {first_line(error)}"
    finally:
        model.train(training)
    return None if getattr(outputs, "loss", None) is not None else "it gives no loss"
