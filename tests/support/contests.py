"""A folder of `octoscale arena` with a table by hand: what is told, what is not, what is far out, or has no number."""

import json

from octoscale.paper.write import Column, Table, csv_text, table_to_json

TITLES = {
    "scaling": None,
    "scales": None,
    "score": 4,
    "gap": 2,
    "low": 2,
    "high": 2,
    "verdict": None,
    "bits": 3,
    "megabytes": 2,
    "seconds": 1,
}
COLUMNS = tuple(Column(key=key, title=key, digits=digits) for key, digits in TITLES.items())


def row(scaling, gap=None, low=None, high=None, verdict="so"):
    score = None if scaling != "bf16" and gap is None else 20.0
    numbers = {"score": score, "gap": gap, "low": low, "high": high, "bits": 8.0, "megabytes": 1.5, "seconds": 2.0}
    return {"scaling": scaling, "scales": "-", "verdict": verdict, **numbers}


ROWS = [
    row("bf16", verdict="the baseline"),
    row("amax", 1.0, 0.5, 1.5, "worse than bf16"),
    row("delayed", 0.5, -0.5, 1.5, "cannot be told from bf16"),
    row("amax:$row", -1.0, -1.25, -0.75, "better than bf16"),
    row("cscale:9", 400.0, 390.0, 410.0, "worse than bf16"),
    row("amax:block", verdict="the input holds infinity"),
    row("amax:mx", verdict="refused: no backend"),
    row("amax:mx,round=up", 0.25, verdict="one seed has no interval"),
]
MADE = {"command": "octoscale arena m", "date": "2030-01-02", "machine": {"cpu": "a CPU", "octoscale": "1.2"}}


def contest(path, rows=ROWS, **changes):
    """Write it; nothing of it is drawn yet."""
    table = Table(name="arena", title="Arena: m, reading a text", columns=COLUMNS, rows=rows, notes=("So.",))
    of = {"model": "m", "against": "bf16", "unit": "windows", "trains": False}
    path.mkdir(exist_ok=True)
    (path / "arena.csv").write_text(csv_text(table))
    (path / "arena.json").write_text(json.dumps(table_to_json(table) | of | changes))
    (path / "made.json").write_text(json.dumps({"arena": MADE}))
    return path
