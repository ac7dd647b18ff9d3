"""Runs worked out by hand, as the files that octoscale writes."""

import polars as pl

from octoscale.kernels.base import EXPONENT_OFFSET, NUM_EXPONENT_BINS
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import SCHEMA
from octoscale.system.whole_file import write_json

PERPLEXITY = {
    "amax": 18.0,
    "bf16": 17.5,
    "cscale": {"-2": 4.0e5, "-1": 18.09, "0": 17.9, "1": 18.1, "2": None},
    "amax:margin=3": 18.2,
}


SUMMARY = {"model": "tiny-llama", "tokens": 4096, "window": 512, "formats": "ocp", "perplexity": PERPLEXITY}


DOWN = "model.layers.{}.mlp.down_proj"


def row(**changes):
    """One row of a run: a down_proj's input whose 100 values all lie in the format."""
    fields = {
        "step": 0,
        "phase": "validate",
        "scaling": "amax",
        "layer": 0,
        "kind": "ffn_out",
        "role": "input",
        "format": "e4m3fn",
        "scale_bias": 4,
        "amax": 20.0,
        "numel": 100,
        "saturated": 0,
        "flushed": 0,
        "nonfinite": 0,
        "exponents": None,
        "rank": 0,
    } | changes
    return {"module": DOWN.format(fields["layer"])} | fields


def frame(*rows):
    return pl.DataFrame(list(rows), schema=SCHEMA)


def histogram(counts, zeros=0, nonfinite=0):
    """A histogram as a backend makes it, from {exponent: count}."""
    bins = [0] * NUM_EXPONENT_BINS
    for exponent, count in counts.items():
        bins[exponent + EXPONENT_OFFSET] = count
    bins[0], bins[-1] = zeros, nonfinite
    return bins


def write_run(path, rows=(), summary=None):
    """A run folder with these files, and no others."""
    run = RunFolder.create(path, {})
    if summary is not None:
        write_json(run.summary, summary)
    if rows:
        frame(*rows).write_parquet(run.scales / "part-000000.parquet")
    return run


def small_run():
    """Two layers of two kinds and three roles under amax, cscale:-2 and cscale:2, with histograms."""
    rows = []
    for scaling, scale_bias, flushed in (("amax", 4, 2), ("cscale:-2", -2, 60), ("cscale:2", 2, 0)):
        for layer in (0, 1):
            seen = {"scaling": scaling, "layer": layer, "scale_bias": scale_bias, "flushed": flushed}
            bins = histogram({-9: flushed, -4: 5, 0: 80 - flushed, 3: 5}, zeros=10)
            rows += [
                row(**seen, role="weight", exponents=bins),
                row(**seen, role="input", exponents=bins),
                row(**seen, role="input", step=1, saturated=1),
                row(**seen, role="grad_output", format="e5m2", exponents=bins),
                row(**seen, kind="attn_qkv", module=f"model.layers.{layer}.self_attn.q_proj"),
            ]
    return rows
