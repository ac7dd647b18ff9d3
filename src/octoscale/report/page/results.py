"""What a run reached, as texts and small tables: what the view "What was found" and the comparison of runs show.

    facts(contents)        [["model", "smollm2-135m"], ["scaling", "amax"], ...]
    tables(contents)       perplexities, tasks, losses: columns and rows of texts
    words(contents)        sentences: the range of constants that pass, failures, the answers of an advice and a parity

Nothing here is HTML: the page sets each text as text.
"""

from collections.abc import Mapping
from typing import Any

from octoscale.report.contents import RunContents
from octoscale.report.data.paired_losses import Excess, excesses
from octoscale.report.data.validation import REFERENCES, excess, finite, split_scores

#: Of a plan, what the page names first; all else of it follows in the comparison of runs.
_FIRST = ("model", "scaling", "formats", "dtype", "text", "task", "tasks")

Table = dict[str, Any]


def facts(contents: RunContents) -> list[list[str]]:
    """What was run: the plan, then command, versions and machine; pairs of a name and a text."""
    header, plan = contents.header, contents.header.get("plan", {})
    names = [*(name for name in _FIRST if name in plan), *(name for name in plan if name not in _FIRST)]
    found = [[name, _text(plan[name])] for name in names if plan[name] not in (None, "", [], False)]
    if isinstance(header.get("command"), list):
        found.append(["command", " ".join(map(str, header["command"]))])
    for name in ("started", "backend", "reason", "device", "threads", "seed"):
        if name in header and not any(name == known for known, _ in found):
            found.append([name, _text(header[name])])
    versions = header.get("versions")
    if isinstance(versions, dict):
        found.append(["versions", ", ".join(f"{name} {version}" for name, version in versions.items())])
    return found


def tables(contents: RunContents) -> list[Table]:
    """Tables of results, those that the run has something for: title, columns, rows, and which row is the reference."""
    found = [_perplexities(contents), *_tasks(contents.summary), _losses(contents.summary)]
    return [table for table in found if table["rows"]]


def words(contents: RunContents) -> list[str]:
    """Sentences that the run wrote itself."""
    summary = contents.summary
    said = [contents.header.get("note", "")]
    said += [summary.get(name, {}).get("text", "") for name in ("cscale_range", "bias_map")]
    said += [f"{scaling}: {failure}" for scaling, failure in summary.get("failures", {}).items()]
    said += [str(summary["failure"])] if "failure" in summary else []
    answers = [*contents.advice.get("answer", ()), *contents.parity.get("answer", ())]
    return [each for each in [*said, _skipped(contents), *answers] if each]


def _skipped(contents: RunContents) -> str:
    """The steps that a dynamic loss scale left out."""
    steps = [f"{row['step']:,}" for row in contents.training_rows if row.get("skipped")]
    more = " and others" if len(steps) > 10 else ""
    return f"The loss scale skipped {len(steps):,} steps: {', '.join(steps[:10])}{more}." if steps else ""


def _perplexities(contents: RunContents) -> Table:
    summary = contents.summary
    lines, points = split_scores(summary.get("perplexity", {}))
    scores: dict[str, float | None] = {**lines, **{f"cscale:{bias}": score for bias, score in points.items()}}
    name = next((name for name in REFERENCES if finite(scores).get(name)), None)
    above = excess(scores, None if name is None else scores[name])
    intervals = {} if name is None else excesses(name, scores, contents.metrics)
    rows = [
        [scaling, _number(score), _above(above.get(scaling), intervals.get(scaling))]
        for scaling, score in scores.items()
    ]
    words = [f"against {name}" if name else "difference", *["95 % interval"] * bool(intervals)]
    where = f"over {summary['tokens']:,} tokens of {summary['text']}" if {"tokens", "text"} <= summary.keys() else ""
    paired = "".join(f"; intervals of {each.windows:,} paired windows" for each in list(intervals.values())[:1])
    title = f"Perplexity {where}".strip() + paired
    return {"title": title, "columns": ["scaling", "perplexity", ", ".join(words)], "rows": rows}


def _tasks(summary: Mapping[str, Any]) -> list[Table]:
    found = []
    for name, task in summary.get("tasks", {}).items():
        metric = task["metric"]
        flat = {scaling: score for scaling, score in task["scores"].items() if scaling != "cscale"}
        flat |= {f"cscale:{bias}": score for bias, score in task["scores"].get("cscale", {}).items()}
        rows = [
            [scaling, f"{score[metric]:.4g}", _interval(score.get("difference"))] for scaling, score in flat.items()
        ]
        title = f"{name}: {metric} over {task['items']:,} items"
        found.append({"title": title, "columns": ["scaling", metric, "difference, 95 % interval"], "rows": rows})
    return found


def _losses(summary: Mapping[str, Any]) -> Table:
    rows = []
    for name in ("validation_loss", "validation_accuracy"):
        if name in summary:
            before, after = summary[name]["before"], summary[name]["after"]
            rows.append([name.replace("_", " "), _number(before), _number(after)])
    return {"title": "Before and after the training", "columns": ["what", "before", "after"], "rows": rows}


def _interval(difference: Any) -> str:
    """A difference to high precision with its interval, as far as it is there."""
    if not isinstance(difference, dict) or difference.get("estimate") is None:
        return ""
    low, high = difference.get("low"), difference.get("high")
    bounds = f" ({low:+.3g} to {high:+.3g})" if low is not None and high is not None else ""
    return f"{difference['estimate']:+.3g}{bounds}"


def _number(value: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"


def _above(percent: float | None, interval: Excess | None) -> str:
    """How far a perplexity lies above the reference's, and its interval, if that is known."""
    if percent is None:
        return ""
    if interval is None:
        return _percent(percent)
    ends = [_percent(100 * end) for end in (interval.low, interval.high)]
    if percent < 1000 and ends[1].endswith(" %"):
        ends = [end.removesuffix(" %") for end in ends]
    return f"{_percent(percent)} ({' to '.join(ends)})"


def _percent(value: float) -> str:
    return f"{value:+.2f} %" if value < 1000 else f"x {1 + value / 100:.3g}"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
