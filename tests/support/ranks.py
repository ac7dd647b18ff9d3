"""Processes that stand for the ranks of a cluster, on this machine, over gloo: they live as long as the tests do.

    ranks = Ranks(2)
    ranks.call(function, "words")        [what rank 0 returned, what rank 1 returned]

A function is a module's, found by its name in each process. An error of any rank is raised here; a rank that does not
answer is killed, and all with it.
"""

import multiprocessing
import tempfile
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

import pytest

SECONDS = 120.0


class Ranks:
    """So many processes in one process group."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._workers = []

    def call(self, function, *words):
        """What each rank returns. RuntimeError with the traceback of the first that failed."""
        if not self._workers:
            self._start()
        for _, pipe in self._workers:
            pipe.send((function, words))
        answers = []
        for _, pipe in self._workers:
            if not pipe.poll(SECONDS):
                self.close()
                raise TimeoutError(f"a rank did not answer within {SECONDS} s: {function.__name__}{words}")
            answers.append(pipe.recv())
        failed = [error for error, _ in answers if error is not None]
        if failed:
            self.close()
            raise RuntimeError("\n".join(failed))
        return [answer for _, answer in answers]

    def close(self) -> None:
        """End the processes."""
        for process, _ in self._workers:
            process.kill()
            process.join()
        self._workers = []

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        meeting = Path(tempfile.mkdtemp()) / "meeting"
        for rank in range(self.size):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, self.size, str(meeting), there), daemon=True)
            process.start()
            self._workers.append((process, here))


def _serve(rank, size, meeting, pipe) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=size, timeout=timedelta(seconds=60))
    while True:
        function, words = pipe.recv()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pipe.send((None, function(*words)))
        except BaseException:  # noqa: BLE001  whatever it is, the test says it
            pipe.send((f"rank {rank}: {traceback.format_exc()}", None))


@pytest.fixture(scope="session")
def two_ranks():
    """Two processes."""
    ranks = Ranks(2)
    yield ranks
    ranks.close()
