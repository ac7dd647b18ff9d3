"""transformers without progress bars and warnings, for a block: what they say is said here, as errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from octoscale.system.held import Held


class _Silence:
    """What transformers logged before."""

    def change(self) -> None:
        from transformers.utils import logging

        self._level, self._had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def undo(self) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._level)
        if self._had_bars:
            logging.enable_progress_bar()


_silence = _Silence()
_held = Held(_silence.change, _silence.undo)


@contextmanager
def quietly() -> Iterator[None]:
    """While the block runs, transformers logs errors only and shows no bars; then it is as talkative as it was."""
    with _held:
        yield
