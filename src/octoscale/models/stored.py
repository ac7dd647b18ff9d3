"""What a checkpoint folder in FP8 holds, for the command inspect."""

from pathlib import Path

from octoscale.checkpoints.said import understood
from octoscale.checkpoints.stored_report import StoredReport, report_stored
from octoscale.models import loading
from octoscale.models.errors import READ_ERRORS, ModelError, explain


def report_of_stored(spec: str) -> StoredReport | None:
    """The report of a folder that is in FP8; None for any other model. ModelError as `load`."""
    if not Path(spec).is_dir() or not loading.is_stored(spec):
        return None
    said = understood(loading.config_of(spec).quantization_config)
    assert said is not None
    try:
        return report_stored(loading.skeleton(spec), loading.shards_in(Path(spec)), said)
    except READ_ERRORS as error:
        raise ModelError(explain(spec, error)) from error
