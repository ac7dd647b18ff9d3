"""Which scale each layer had: by depth, and by step, from the rows of a run.

Tensors without a scale of their own, amax 0 or not finite, are left out; so are modules outside a stack of layers.
"""

from collections.abc import Sequence

import polars as pl


def scale_bias_by_layer(rows: pl.DataFrame, scaling: str | None = None) -> pl.DataFrame:
    """role, kind, layer -> mode, low, high of scale_bias over steps and modules; the smallest of equal modes.

    scaling: of the rows of one; None for all.
    """
    bias = pl.col("scale_bias")
    of_scaling = None if scaling is None else pl.col("scaling") == scaling
    groups = _with_scale(rows, of_scaling).group_by("role", "kind", "layer")
    return groups.agg(mode=bias.mode().min(), low=bias.min(), high=bias.max()).sort("role", "kind", "layer")


def scale_bias_by_step(rows: pl.DataFrame) -> pl.DataFrame:
    """role, kind, layer, step -> mode of scale_bias over modules and micro-batches, the smallest of equal modes.

    Of the drawn layers.
    """
    rows = _with_scale(rows)
    layers = drawn_layers(rows["layer"].unique().to_list())
    groups = rows.filter(pl.col("layer").is_in(layers)).group_by("role", "kind", "layer", "step")
    return groups.agg(mode=pl.col("scale_bias").mode().min()).sort("role", "kind", "layer", "step")


def drawn_layers(layers: Sequence[int]) -> list[int]:
    """The first, the two middle ones and the last, as in the paper; all, if there are fewer."""
    ordered = sorted(layers)
    places = {0, (len(ordered) - 1) // 2, len(ordered) // 2, len(ordered) - 1}
    return [ordered[place] for place in sorted(places)] if ordered else []


def _with_scale(rows: pl.DataFrame, also: pl.Expr | None = None) -> pl.DataFrame:
    wanted = rows.lazy() if also is None else rows.lazy().filter(also)
    wanted = wanted.select("role", "kind", "layer", "step", "scale_bias", "amax")
    return wanted.filter(pl.col("amax").is_finite() & (pl.col("amax") > 0) & pl.col("layer").is_not_null()).collect()
