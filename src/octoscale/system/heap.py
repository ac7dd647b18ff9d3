"""What becomes of memory that is not needed any more: it is kept for the next tensor, or goes back to the system.

A training step allocates the same large tensors again and again; glibc gives those above 32 MB back to the system each
time, and gets them back as pages to be filled with zeros, one fault for each 4 KiB. SmolLM2's logits alone are 50,000
faults a tensor, and all faults a fifth of the step. Commands of ours call this; the library never does.
"""

import ctypes
import mmap
import sys

# The names and numbers of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1  # mallopt takes an int
_MADV_PAGEOUT = 21  # <linux/mman.h>


def keep_freed_memory() -> bool:
    """Have malloc reuse freed memory instead of returning it to the system; False where there is no glibc."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(name, _NEVER) == 1 for name in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD))


def page_out(address: int, num_bytes: int) -> bool:
    """Let go of a mapped file's bytes that will hardly be read again; if they are, they are the same. False if not.

    The system would take them back when it needs memory; until then they count as this process's.
    """
    if sys.platform != "linux":
        return False
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + num_bytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length <= 0:
        return False
    madvise = ctypes.CDLL(None).madvise
    return bool(madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), _MADV_PAGEOUT) == 0)
