"""Which scale each layer had: by depth, and by step, from the rows of a run.

Tensors without a scale of their own, amax 0 or not finite, are left out; so are modules outside a stack of layers.
Where a tensor has several scales, its scale_bias is the lowest of them; `HIGHEST` is the other end of that band.
"""

from collections.abc import Sequence

import polars as pl

from octoscale.numerics.granularity import TENSOR
from octoscale.runs.parts import GRANULARITY

#: Of a tensor's scales the highest, where it has several; else the one that it has.
HIGHEST = pl.coalesce("scale_bias_high", "scale_bias")

#: Over which values a scale reaches; over the tensor, where a row does not say.
REACH = pl.col(GRANULARITY).fill_null(TENSOR.name)


def scale_bias_by_layer(rows: pl.DataFrame, scaling: str | None = None) -> pl.DataFrame:
    """role, kind, layer -> mode, low, high of scale_bias over steps and modules; the smallest of equal modes.

    Of several scales a tensor, `mode` is that of the lowest ones, and `high` the highest of all. scaling: of the rows
    of one; None for all.
    """
    bias = pl.col("scale_bias")
    of_scaling = None if scaling is None else pl.col("scaling") == scaling
    groups = _with_scale(rows, of_scaling).group_by("role", "kind", "layer")
    return groups.agg(mode=bias.mode().min(), low=bias.min(), high=HIGHEST.max()).sort("role", "kind", "layer")


def scale_bias_by_step(rows: pl.DataFrame) -> pl.DataFrame:
    """role, kind, layer, step -> mode of scale_bias over modules and micro-batches, the smallest of equal modes.

    Of the drawn layers; of several scales a tensor, of the lowest ones.
    """
    return _by_step(rows).agg(mode=pl.col("scale_bias").mode().min()).sort(_BY_STEP)


def bands_by_step(rows: pl.DataFrame) -> pl.DataFrame:
    """role, kind, layer, step -> low, high of all scales over modules and micro-batches, of tensors that have several.

    Of the drawn layers; no row where each tensor has one scale.
    """
    groups = _by_step(rows, pl.col("num_scales").is_not_null())
    return groups.agg(low=pl.col("scale_bias").min(), high=HIGHEST.max()).sort(_BY_STEP)


def drawn_layers(layers: Sequence[int]) -> list[int]:
    """The first, the two middle ones and the last, as in the paper; all, if there are fewer."""
    ordered = sorted(layers)
    places = {0, (len(ordered) - 1) // 2, len(ordered) // 2, len(ordered) - 1}
    return [ordered[place] for place in sorted(places)] if ordered else []


_BY_STEP = ("role", "kind", "layer", "step")


def _by_step(rows: pl.DataFrame, also: pl.Expr | None = None) -> "pl.dataframe.group_by.GroupBy":
    """The rows of the drawn layers, in groups; which layers are drawn does not depend on `also`."""
    rows = _with_scale(rows)
    layers = drawn_layers(rows["layer"].unique().to_list())
    wanted = pl.col("layer").is_in(layers)
    return rows.filter(wanted if also is None else wanted & also).group_by(_BY_STEP)


def _with_scale(rows: pl.DataFrame, also: pl.Expr | None = None) -> pl.DataFrame:
    wanted = rows.lazy() if also is None else rows.lazy().filter(also)
    wanted = wanted.select("role", "kind", "layer", "step", "scale_bias", "amax", "scale_bias_high", "num_scales")
    return wanted.filter(pl.col("amax").is_finite() & (pl.col("amax") > 0) & pl.col("layer").is_not_null()).collect()
