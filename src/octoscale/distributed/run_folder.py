"""The folder of a run that several ranks write to: the first one holds it, and what it is refused, all are refused."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from octoscale.distributed.mesh import by_first
from octoscale.system.lock import exclusive_run


@contextmanager
def held_by_first(folder: Path) -> Iterator[None]:
    """Hold a run's folder while the block runs, as `exclusive_run`; all ranks call it. Of one process, the same."""
    with ExitStack() as stack:
        by_first(lambda: stack.enter_context(exclusive_run(folder)))
        yield
