"""The numbers that the figures show: small functions from the rows of a run to what is drawn, and no drawing.

Each can be checked by hand against a table of a few rows, which pictures cannot.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl

from octoscale.kernels.base import EXPONENT_OFFSET, NUM_EXPONENT_BINS
from octoscale.numerics.formats import Format
from octoscale.report.data.histograms import abridged, with_histograms
from octoscale.validation import bias_range

Key = TypeVar("Key", str, int)

#: The precisions without FP8; the first that a run has is what its other perplexities are measured against.
REFERENCES = ("bf16", "fp16", "fp32")


def finite(scores: Mapping[Key, float | None]) -> dict[Key, float]:
    """The scores that are numbers: null stands for one that was not finite."""
    return {key: score for key, score in scores.items() if score is not None}


def reference_of(scores: Mapping[str, float | None]) -> str:
    """The high precision that the others are measured against; the first scaling where there is none."""
    return next((name for name in REFERENCES if finite(scores).get(name)), next(iter(scores), ""))


def split_scores(perplexity: Mapping[str, Any]) -> tuple[dict[str, float | None], dict[int, float | None]]:
    """The perplexities without a bias, high precision first and then in the run's order; those of cscale by bias."""
    names = [*REFERENCES, *(name for name in perplexity if name not in REFERENCES)]
    lines = {name: perplexity[name] for name in names if name in perplexity and name != "cscale"}
    return lines, dict(sorted((int(bias), value) for bias, value in perplexity.get("cscale", {}).items()))


def excess(scores: Mapping[Key, float | None], reference: float | None) -> dict[Key, float]:
    """How far each finite score lies above the reference, in %; nothing without a reference."""
    return {} if reference is None else {key: 100 * (value / reference - 1) for key, value in finite(scores).items()}


def basin(perplexity: Mapping[str, Any]) -> list[int]:
    """The biases whose perplexity is within 0.5 % of amax's; none if there is no amax to compare with."""
    if not perplexity.get("amax") or not perplexity.get("cscale"):
        return []
    found = bias_range.basin(split_scores(perplexity)[1], perplexity["amax"])
    return [] if found is None else list(range(found[0], found[1] + 1))


def main_scaling(scalings: Sequence[str]) -> str | None:
    """`amax` if it was run, else the first scaling that is not constant; None if all are."""
    adaptive = [scaling for scaling in scalings if constants(scaling) is None]
    return "amax" if "amax" in adaptive else next(iter(adaptive), None)


def shares_by_exponent(rows: pl.DataFrame) -> dict[int, float]:
    """Binary exponent -> share of the non-zero finite values in %, histograms summed over rows; no empty bins."""
    counts = histogram(rows)
    return {exponent: 100 * count / sum(counts.values()) for exponent, count in counts.items()}


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What a format holds at a scale_bias, as log2|x| of the values before scaling.

    At or below `flushed` a value rounds to zero, above `saturated` it is clamped, and between `flushed` and `normal`
    it is subnormal: it loses a bit of precision with each exponent.
    """

    flushed: float
    normal: float
    saturated: float


def reach(fmt: Format, scale_bias: int) -> Reach:
    """The reach of a format at a scale_bias. Half the smallest subnormal still rounds to the even code, zero."""
    return Reach(
        flushed=fmt.min_subnormal_exponent - 1 - scale_bias,
        normal=fmt.min_normal_exponent - scale_bias,
        saturated=math.log2(fmt.max) - scale_bias,
    )


def clipped_shares(rows: pl.DataFrame) -> pl.DataFrame:
    """scaling, role, kind, layer -> saturated, flushed: shares in % of all values, zeros included, over all steps."""
    groups = rows.lazy().filter(pl.col("layer").is_not_null()).group_by("scaling", "role", "kind", "layer")
    sums = groups.agg(pl.col("saturated", "flushed", "numel").sum()).filter(pl.col("numel") > 0).collect()
    shares = [(100 * pl.col(count) / pl.col("numel")).alias(count) for count in ("saturated", "flushed")]
    return sums.select("scaling", "role", "kind", "layer", *shares).sort("scaling", "role", "kind", "layer")


def decades(shares: Sequence[float]) -> tuple[float, float]:
    """The whole decades, at least one and none above 100 %, that hold all shares but the zeros."""
    occurring = [share for share in shares if share > 0] or [1.0]
    low = min(1, math.floor(math.log10(min(occurring))))
    return 10.0**low, 10.0 ** max(low + 1, math.ceil(math.log10(max(occurring))))


def clipping_scalings(scalings: Sequence[str]) -> list[str]:
    """The main scaling, and of the constant ones those with the largest and the smallest bias (the weights' first)."""
    constant = sorted((biases, scaling) for scaling in scalings if (biases := constants(scaling)) is not None)
    edges = [scaling for _, scaling in (constant[-1:] + constant[:-1][:1])]
    main = main_scaling(scalings)
    return edges if main is None else [main, *edges]


def default_module(rows: pl.DataFrame) -> str | None:
    """The module of kind ffn_out, with a histogram, that flushes most under the main scaling; the middle one if none
    flushes. Among all kinds if there is no ffn_out, among all scalings if there is no main one.
    """
    rows = with_histograms(abridged(rows))
    main = main_scaling(scalings_of(rows))
    rows = rows if main is None else rows.filter(scaling=main)
    rows = rows if rows.filter(kind="ffn_out").is_empty() else rows.filter(kind="ffn_out")
    groups = rows.group_by("module", maintain_order=True)
    modules = groups.agg(pl.col("layer").first(), share=pl.col("flushed").sum() / pl.col("numel").sum())
    if modules.is_empty():
        return None
    modules = modules.sort("layer", maintain_order=True)
    worst = modules.sort("share", descending=True, maintain_order=True).row(0, named=True)
    return str(worst["module"] if worst["share"] > 0 else modules["module"][(len(modules) - 1) // 2])


def exponent_scalings(rows: pl.DataFrame, perplexity: Mapping[str, Any]) -> list[str]:
    """Of one module's rows with histograms: the main scaling, and the constant one with the worst perplexity.

    Where perplexities are missing or equal, the worst is the one that clips the largest share of the values.
    """
    share = (pl.col("saturated") + pl.col("flushed")).sum() / pl.col("numel").sum()
    clipped = dict(rows.group_by("scaling").agg(share).iter_rows())
    scores = {**perplexity} | {f"cscale:{bias}": score for bias, score in perplexity.get("cscale", {}).items()}
    worst_of = {name: math.inf if scores[name] is None else scores[name] for name in scores if name != "cscale"}
    scalings = scalings_of(rows)
    constant = [scaling for scaling in scalings if constants(scaling) is not None]
    worst = max(constant, key=lambda scaling: (worst_of.get(scaling, 0.0), clipped[scaling]), default=None)
    return [scaling for scaling in (main_scaling(scalings), worst) if scaling is not None]


def mode_of(values: pl.Series) -> int:
    """The most frequent value; the smallest of equally frequent ones."""
    modes: list[int] = values.mode().to_list()
    return min(modes)


def histogram(rows: pl.DataFrame) -> dict[int, int]:
    """Binary exponent -> number of values, for the exponents that occur; zeros, inf and NaN are left out."""
    counts = [sum(column) for column in zip(*rows["exponents"].drop_nulls().to_list(), strict=True)]
    values = range(1, NUM_EXPONENT_BINS - 1)
    return {index - EXPONENT_OFFSET: counts[index] for index in values if counts and counts[index]}


def scalings_of(rows: pl.DataFrame) -> list[str]:
    """The scalings of some rows, in the order in which they were run."""
    return rows["scaling"].unique(maintain_order=True).to_list()


def layers_of(rows: pl.DataFrame) -> range:
    """The numbers of the layers, from the first to the last that some rows are of."""
    layers: list[int] = rows["layer"].to_list()
    return range(min(layers), max(layers) + 1)


def constants(scaling: str) -> tuple[int, ...] | None:
    """(-3,) for `cscale:-3` and `cscale:-3,formats=fnuz`, (3, -1) for `cscale:weight=3,input=-1`; None for others.

    Those of gradients have no say: `adapts` knows them.
    """
    found = re.match(r"cscale:(?:weight=)?(-?\d+)(?:,input=(-?\d+))?", scaling)
    return None if found is None else tuple(int(bias) for bias in found.groups() if bias is not None)


def adapts(scaling: str, role: str) -> bool:
    """Whether a role has no constant under a scaling: gradients may have none where weights and inputs do."""
    by_role = "weight=" in scaling and "grad_output=" not in scaling
    return constants(scaling) is None or (role == "grad_output" and by_role)
