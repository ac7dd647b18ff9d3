"""Figure 6: the scales that FP8-AMAX chooses in inference, by decoder layer and kind of layer; a panel a model."""

from octoscale.paper.lab import Lab
from octoscale.paper.settings import TITLES
from octoscale.paper.write import Numbers
from octoscale.runs.scale_bias import scale_bias_by_layer
from octoscale.runs.scales import read_scales


def fig6(lab: Lab) -> Numbers:
    """The numbers, measured where they are not yet."""
    panels = []
    for model in lab.settings.models_of("fig6"):
        rows = scale_bias_by_layer(read_scales(lab.read(model).path))
        series = [
            {"role": role, "kind": kind, **{name: part[name].to_list() for name in ("layer", "mode", "low", "high")}}
            for (role, kind), part in rows.group_by("role", "kind", maintain_order=True)
        ]
        panels.append({"model": model, "text": lab.settings.text, "tokens": lab.settings.tokens, "series": series})
    return Numbers(name="fig6", title=f"Figure 6. {TITLES['fig6']}", panels=panels, notes=(_NOTE,))


_NOTE = "Mode over the windows of a text and the modules of a kind; low and high are the extremes."
