"""Whether a run goes on, has ended, or died: what a page that watches says first.

    state_of(run, contents)      {"name": "running", "text": "The run goes on."}

running      a process holds the run's folder
finished     nobody does, and all that was asked for is there
stopped      nobody does, and something is missing: Ctrl-C, or an error
ended        nobody does, and what would tell whether all is there is damaged
died         the process ended without a word: its lock is still there, and nobody holds it
unknown      its lock is there, and may not be asked: another user's, say, on a file system without locks
not begun    there is no run yet
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octoscale.report.contents import RunContents
from octoscale.runs.folder import RunFolder
from octoscale.system.lock import is_held, is_left
from octoscale.validation.scores import flatten


def state_of(run: RunFolder, contents: RunContents | None) -> dict[str, str]:
    """The name of the state, and words about it."""
    if contents is None or not run.header.exists():
        return _state("not begun", f"{run.path} holds no run yet.")
    held = is_held(run.path)
    if held:
        return _state("running", "The run goes on.")
    if held is None:
        return _state("unknown", f"Its lock cannot be asked, so nothing tells whether it goes on; {_last_sign(run)}.")
    missing = _missing(contents)
    if is_left(run.path):
        return _state("died", f"The process ended without a word; {_last_sign(run)}.{_remedy(contents)}")
    damaged = [path.name for path in (run.header, run.summary) if _is_damaged(path, contents)]
    if damaged and (missing or not contents.header.get("plan")):
        lost = f"{' and '.join(damaged)} cannot be read as written"
        return _state("ended", f"The run has ended; nothing tells whether it is complete, for {lost}.")
    if missing:
        return _state("stopped", f"The run ended before it was done: {missing}.{_remedy(contents)}")
    return _state("finished", "The run is finished.")


def _state(name: str, text: str) -> dict[str, str]:
    return {"name": name, "text": text}


def _is_damaged(path: Path, contents: RunContents) -> bool:
    """Whether one of the run's files is named among what is damaged."""
    return any(line.startswith((f"{path}:", f"{path} ")) for line in contents.damaged)


def _missing(contents: RunContents) -> str:
    """What a finished run would have, in words; nothing for one whose plan is unknown."""
    plan: Mapping[str, Any] = contents.header.get("plan", {})
    summary = contents.summary
    if "scaling" in plan and "steps" in plan:
        return "" if "validation_loss" in summary else "there is no loss of the whole training"
    if isinstance(plan.get("scalings"), list):
        seconds = summary.get("seconds")
        there = set(flatten(seconds)) if isinstance(seconds, dict) else set()
        lacking = [name for name in map(str, plan["scalings"]) if name not in there]
        return f"no result of {', '.join(lacking)}" if lacking else ""
    if "bias" in plan:
        return "" if {"cscale_range", "bias_map"} & summary.keys() else "the range of constants was not found"
    return ""


def _remedy(contents: RunContents) -> str:
    plan = contents.header.get("plan", {})
    can_go_on = ("scaling" in plan and "steps" in plan) or "bias" in plan
    return " To go on: the same command with --resume." if can_go_on else ""


def _last_sign(run: RunFolder) -> str:
    """When the run wrote for the last time."""
    times = [path.stat().st_mtime for path in (run.header, run.metrics, run.summary, run.scales) if path.exists()]
    return f"it wrote last at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(max(times)))}"
