"""What a watch notices. Oracle: what was done to the module."""

import pytest
import torch
from torch import nn

from octoscale.layers.reuse import Watch


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 3, bias=False), nn.Tanh()))


def step(model: nn.Module) -> None:
    with torch.no_grad():
        model[0].weight.mul_(2)


def replace_parameter(model: nn.Module) -> None:
    model[1][0].weight = nn.Parameter(model[1][0].weight.detach().clone())


def move(model: nn.Module) -> None:
    model[0].bias.data = model[0].bias.data.clone()


def replace_module(model: nn.Module) -> None:
    model[1][1] = nn.ReLU()


def add_parameter(model: nn.Module) -> None:
    model[1][0].bias = nn.Parameter(torch.zeros(3))


def remove_parameter(model: nn.Module) -> None:
    model[0].bias = None


@pytest.mark.parametrize("change", [step, replace_parameter, move, replace_module, add_parameter, remove_parameter])
def test_a_change_is_noticed(change, model):
    watch = Watch(model.modules())
    assert not watch.has_changed()
    change(model)
    assert watch.has_changed()
    assert not Watch(model.modules()).has_changed()


def test_what_leaves_weights_alone_is_no_change(model):
    watch = Watch(model.modules())
    model(torch.ones(2, 4)).sum().backward()
    model.requires_grad_(False)
    model.state_dict()
    assert not watch.has_changed()


def test_a_module_that_others_hold_is_not_watched(model):
    watch = Watch(model[1].modules())
    step(model)
    assert not watch.has_changed()
