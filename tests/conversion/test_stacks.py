"""Where decoder layers stand. Oracles: the model without a wrapper; lists that were made for it."""

import pytest
import torch
import transformers as T
from models import tiny_llama
from torch import nn

from octoscale import Recipe
from octoscale.conversion.convert import preview


@pytest.mark.filterwarnings("ignore")  # torch's own
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: nn.Sequential(m), torch.compile], ids=["", "in", "compiled"])
def test_a_wrapper_changes_nothing(wrap):
    """Oracle: the model without it."""
    alone = {row.module: (row.converted, row.reason) for row in preview(tiny_llama(), Recipe.amax()).modules}
    rows = preview(wrap(tiny_llama()), Recipe.amax()).modules
    inner = {row.module.removeprefix("0.").removeprefix("_orig_mod."): (row.converted, row.reason) for row in rows}
    assert inner == alone


class Lists(T.PreTrainedModel):
    """Lists that hold layers, and lists that do not."""

    config_class = T.PretrainedConfig

    def __init__(self):
        super().__init__(T.PretrainedConfig())
        mlp = lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))  # noqa: E731
        self.layers = nn.ModuleList([mlp(), mlp()])
        self.projections = nn.ModuleList([nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)])
        self.bbox_embed = nn.ModuleList([mlp()])
        self.deepstack_merger_list = nn.ModuleList([mlp()])
        self.empty = nn.ModuleList()


def test_lists_of_bare_layers_of_heads_and_of_mergers_are_no_stacks():
    rows = preview(Lists(), Recipe.amax()).modules
    assert [row.module for row in rows if row.converted] == ["layers.0.0", "layers.0.2", "layers.1.0", "layers.1.2"]
    assert [row.layer for row in rows if row.converted] == [0, 0, 1, 1]
    assert {row.reason for row in rows if not row.converted} == {"outside the decoder layers"}
