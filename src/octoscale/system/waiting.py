"""How long an idle thread of torch's pool spins for its next share of work, before it gives its core away.

GNU's OpenMP, which torch brings on Linux, lets it spin 300,000 times, some milliseconds on today's CPUs. Alone on a
machine that is fast. But while another program has one of the cores, the thread that is done first burns the core that
the other one waits for: two commands at once took up to 40 times as long each (docs/LOG.md has the measurements). Our
commands bound the spin; the library never does, as that is a setting of the whole process. What torch's other runtimes
do (Intel's and LLVM's OpenMP, on macOS and in conda's builds) remains theirs.
"""

import os
import sys

SPIN_VARIABLE = "GOMP_SPINCOUNT"
#: The fewest tried that cost a program alone on the machine no more than 2 % by medians: a tenth of GNU's.
SPINS = 30_000
#: Whoever set one of these has decided.
_USERS = (SPIN_VARIABLE, "OMP_WAIT_POLICY")


def bound_spinning() -> bool:
    """Bound the spin of this process, unless the user set it. False if torch is loaded: it is too late."""
    if any(name in os.environ for name in _USERS):
        return True
    if "torch" in sys.modules:
        return False
    os.environ[SPIN_VARIABLE] = str(SPINS)
    return True
