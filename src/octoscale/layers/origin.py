"""What a layer was before it was one of ours: torch's linear layer, or GPT-2's Conv1D with its weight [in, out]."""

from torch import nn


def is_conv1d(module: nn.Module) -> bool:
    """Whether this is transformers' `Conv1D`, the linear layer of GPT-2 with a weight [in, out], or a part of one."""
    return is_conv1d_class(type(module))


def is_conv1d_class(cls: type[nn.Module]) -> bool:
    """The same of a class."""
    return getattr(cls, "is_part_of_conv1d", False) or (
        cls.__name__ == "Conv1D" and cls.__module__ == "transformers.pytorch_utils"
    )


def is_linear(module: nn.Module) -> bool:
    """Whether this is a linear layer, of torch or of GPT-2."""
    return isinstance(module, nn.Linear) or is_conv1d(module)
