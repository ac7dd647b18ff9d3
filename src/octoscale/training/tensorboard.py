"""TensorBoard gets the exponents of chosen modules as histograms, beside the scalars that Trainer and we send.

    octoscale train gpt-10m --report-to tensorboard --histograms down_proj --histograms "layers.0.*"

A histogram is that of log2|x| before scaling, one bin an exponent, on each step that records histograms (`every`):
tags as `exponents/input/model.layers.0.mlp.down_proj`. Zeros, infinity and NaN are left out, as they have no exponent.
"""

from collections.abc import Callable, Sequence
from typing import Any

import transformers

from octoscale.conversion.patterns import matches
from octoscale.kernels.base import EXPONENT_OFFSET
from octoscale.runs.scales import Recorder


class HistogramCallback(transformers.TrainerCallback):  # type: ignore[misc]
    """Sends histograms to the event file that TensorBoard's own callback has open.

    tensorboard: that callback, which comes before. recorder: says what records, or None if nothing does. patterns:
    which modules (conversion/patterns.py).
    """

    def __init__(self, tensorboard: Any, recorder: Callable[[], Recorder | None], patterns: Sequence[str]) -> None:
        self._tensorboard, self._recorder, self._patterns = tensorboard, recorder, patterns

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """With each loss, the histograms of its step, if that has any."""
        recorder, writer = self._recorder(), self._tensorboard.tb_writer
        if recorder is None or writer is None or "loss" not in logs:
            return
        for (module, role), counts in recorder.exponents().items():
            if any(matches(pattern, module) for pattern in self._patterns):
                send_exponents(writer, f"exponents/{role}/{module}", counts, state.global_step)


def send_exponents(writer: Any, tag: str, counts: Sequence[int], step: int) -> None:
    """Add the histogram of log2|x| to a SummaryWriter's file; nothing if no value has an exponent.

    counts: bins as those of kernels/base.py; one holds the values from 2**exponent up to twice that.
    """
    by_exponent = {place - EXPONENT_OFFSET: count for place, count in enumerate(counts) if count}
    for place in (0, len(counts) - 1):  # zeros; infinity and NaN
        by_exponent.pop(place - EXPONENT_OFFSET, None)
    if not by_exponent:
        return
    low, high = min(by_exponent), max(by_exponent)
    middles = {exponent + 0.5: count for exponent, count in by_exponent.items()}
    writer.add_histogram_raw(
        tag,
        min=low,
        max=high + 1,
        num=sum(by_exponent.values()),
        sum=sum(middle * count for middle, count in middles.items()),
        sum_squares=sum(middle**2 * count for middle, count in middles.items()),
        bucket_limits=[*range(low, high + 2)],  # the first bucket, below all values, is empty: it says where they begin
        bucket_counts=[0, *(by_exponent.get(exponent, 0) for exponent in range(low, high + 1))],
        global_step=step,
    )
