"""Which of a model's own numbers is infinity or NaN: asked once its results are.

raise NonFiniteError(f"the logits hold infinity or NaN{why(model)}")
"""

from torch import nn


def why(model: nn.Module) -> str:
    """`; NAME holds infinity or NaN, mend the checkpoint`, of the first parameter or buffer; "" if all are finite."""
    for tensors in (model.named_parameters(), model.named_buffers()):
        for name, tensor in tensors:
            if tensor.is_floating_point() and not bool(tensor.detach().float().isfinite().all()):
                return f"; {name} holds infinity or NaN, mend the checkpoint"
    return ""
