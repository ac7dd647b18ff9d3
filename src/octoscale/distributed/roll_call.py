"""Which rank is gone: a rank that has lost another one asks all of them, and who does not answer is named.

    roll = RollCall(store, rank, size)     when the ranks have met
    roll.missing()                         [3], after a few seconds

What a process group says of a lost connection names no rank, and its ranks wait for each other in turn: whoever notices
may be a neighbor's neighbor. So each rank has a thread that looks now and then whether a roll is called, in the store
where the ranks met, and answers; a rank that computes, reads or waits for others answers too, only a dead one does not.
"""

import atexit
import threading
import time
from typing import Any

import torch.distributed as dist

#: How often a rank looks, how long the one that calls waits for the answers, and for the store itself, in seconds.
INTERVAL, PATIENCE = 0.5, 5.0

_CALLED = "roll call"


class RollCall:
    """One rank's part in it; until the process ends."""

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self._own, self._rank, self._size = store, rank, size
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(_connected_anew(store),), daemon=True)
        self._thread.start()
        atexit.register(self._stop)

    def missing(self) -> list[int]:
        """The ranks that do not answer; none if there is no store any more to ask in."""
        try:
            store = _connected_anew(self._own)
            self._answer(store)
            store.set(_CALLED, "")
            until = time.monotonic() + PATIENCE
            while (silent := self._silent(store)) and time.monotonic() < until:
                time.sleep(INTERVAL / 2)
        except dist.DistError:
            return []
        return silent

    def _silent(self, store: Any) -> list[int]:
        return [rank for rank in range(self._size) if not store.check([_key(rank)])]

    def _listen(self, store: Any) -> None:
        try:
            while not self._stopped.wait(INTERVAL):
                if store.check([_CALLED]):
                    self._answer(store)
                    return
        except dist.DistError:  # the store is gone, with the process that kept it
            return

    def _answer(self, store: Any) -> None:
        store.set(_key(self._rank), "")

    def _stop(self) -> None:
        """Before Python ends: a thread in torch's own code would not survive that."""
        self._stopped.set()
        self._thread.join(PATIENCE)


def _key(rank: int) -> str:
    return f"rank {rank} is here"


def _connected_anew(store: Any) -> Any:
    """The same store by another connection, for one that waits for an answer keeps others waiting."""
    return store.clone() if hasattr(store, "clone") else store
