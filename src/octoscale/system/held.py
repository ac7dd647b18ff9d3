"""A change to something that the whole process shares, in force as long as somebody holds it, whichever thread that is.

silence = Held(change, undo)
with silence:                    # changed, unless it is already
...                          # undone by the last one who leaves
"""

import threading
from collections.abc import Callable


class Held:
    """Counts its holders: the first one changes, the last one undoes."""

    def __init__(self, change: Callable[[], object], undo: Callable[[], object]) -> None:
        self._change, self._undo = change, undo
        self._lock, self._num_holders = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if self._num_holders == 0:
                self._change()
            self._num_holders += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_holders -= 1
            if self._num_holders == 0:
                self._undo()
