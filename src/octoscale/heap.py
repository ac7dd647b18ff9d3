"""Keep what the process frees, for the next tensor of that size.

A training step allocates the same large tensors again and again; glibc gives those above 32 MB back to the system each
time, and gets them back as pages to be filled with zeros, one fault for each 4 KiB. SmolLM2's logits alone are 50,000
faults a tensor, and all faults a fifth of the step. Commands of ours call this; the library never does.
"""

import ctypes
import sys

# The names and numbers of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1  # mallopt takes an int


def keep_freed_memory() -> bool:
    """Have malloc reuse freed memory instead of returning it to the system; False where there is no glibc."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(name, _NEVER) == 1 for name in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD))
