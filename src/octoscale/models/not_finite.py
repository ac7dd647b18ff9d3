"""Which of a model's own numbers is infinity or NaN: asked once its results are, to name what is to be mended.

    raise NonFiniteError(f"the logits hold infinity or NaN{where_not_finite(model)}")

It reads every parameter, so nothing asks it before there is something to explain.
"""

from torch import nn


def where_not_finite(model: nn.Module) -> str:
    """`; NAME holds infinity or NaN, mend the checkpoint`, of the first parameter or buffer; "" if all are finite."""
    for tensors in (model.named_parameters(), model.named_buffers()):
        for name, tensor in tensors:
            if tensor.is_floating_point() and not bool(tensor.detach().float().isfinite().all()):
                return f"; {name} holds infinity or NaN, mend the checkpoint"
    return ""
