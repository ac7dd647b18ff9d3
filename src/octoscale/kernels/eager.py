"""Whether a kernel may be handed a tensor's address: a tracer, a fake tensor or a transform has none to give."""

import torch
from torch import Tensor, nn


def is_eager(x: Tensor) -> bool:
    """Whether this is a tensor with memory of its own, outside of any tracer.

    The wrappers of torch.func have the type Tensor, and no memory: an address of theirs would be null. Raises
    RuntimeError under torch.jit.trace, which would keep the scale of the one tensor that it saw.
    """
    if torch.compiler.is_compiling() or type(x) not in (Tensor, nn.Parameter):
        return False
    if torch._C._is_tracing():
        raise RuntimeError("torch.jit.trace cannot record a scale that follows its input: use torch.compile or export")
    return not (torch._is_functional_tensor(x) or torch._C._functorch.is_functorch_wrapped_tensor(x))
