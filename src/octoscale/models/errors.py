"""What reading a broken or foreign checkpoint raises, and the one line that a user gets of it."""

import struct

from safetensors import SafetensorError

from octoscale.system.errors import UserError

#: What reading a broken or foreign checkpoint raises, in torch, transformers, gguf and safetensors.
READ_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    ImportError,
    struct.error,
    SafetensorError,
)


class ModelError(UserError):
    """A MODEL argument cannot be resolved or read; the message names the argument and the remedy."""


def explain(spec: str, error: BaseException) -> str:
    """That a MODEL argument cannot be read, and why."""
    return f"cannot read the model {spec}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    """What was said; of a library's error, which may be a bare name, with its type."""
    lines = str(error).strip().splitlines()
    said = lines[0] if lines else "no reason given"
    return said if isinstance(error, UserError) else f"{type(error).__name__}: {said}"
