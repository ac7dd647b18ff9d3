"""A folder of `octoscale reproduce` with numbers written down by hand: a table, and each kind of figure."""

import json

from octoscale.paper.write import Column, Numbers, Table, write

SERIES = [
    {"role": role, "kind": kind, "layer": [0, 1], "mode": [4, 5], "low": [3, 5], "high": [4, 6]}
    for role in ("weight", "input")
    for kind in ("attn_qkv", "ffn_out")
]
STEPS = [
    {"role": role, "kind": "ffn_out", "layer": layer, "step": [0, 1, 2], "mode": [4, 5, 5]}
    for role in ("weight", "input", "grad_output")
    for layer in (0, 1)
]
WHO = {"model": "some/gpt-$10m", "task": "sst2", "seed": 0}
POINTS = [
    {"bias": -1, "score": 79.0, "low": 70.0, "high": 85.0},
    {"bias": 0, "score": 80.0},
    {"bias": 1, "score": None},
]
LINES = [{"scaling": "bf16", "score": 80.0}, {"scaling": "amax", "score": 79.5, "low": 79.0, "high": 80.5}]
LOSSES = [
    {"scaling": "bf16", "step": [1, 2], "loss": [0.7, 0.5]},
    {"scaling": "amax", "step": [1, 2], "loss": [0.7, None]},
]
MADE = {
    "command": "octoscale reproduce <all>",
    "date": "2030-01-02",
    "machine": {"octoscale": "1.2", "backend": "native", "threads": 2},
}


def reproduced(path):
    """Write it; nothing of it is drawn yet."""
    columns = (Column(key="model", title="model"), Column(key="amax", title="AMAX", digits=2))
    rows = [{"model": "a<b", "amax": 66.6666}]
    write(Table(name="table4", title="Table 4. By hand", columns=columns, rows=rows, notes=("Of & nothing.",)), path)
    panels = {
        "fig5": [{**WHO, "items": 10, "lines": LINES, "points": POINTS}] * 4,
        "fig6": [{"model": name, "text": "pydoc", "tokens": 1024, "series": SERIES} for name in ("a", "b")],
        "fig7": [{**WHO, "series": STEPS}],
        "fig10": [{**WHO, "series": LOSSES}] * 2,
    }
    for name, content in panels.items():
        write(Numbers(name=name, title=f"Figure {name[3:]}. By hand", panels=content, notes=("So.",)), path)
    made = dict.fromkeys(("table4", *panels), MADE)
    (path / "made.json").write_text(json.dumps(made | {"left_out": {"fig9": "shows a third model"}}))
