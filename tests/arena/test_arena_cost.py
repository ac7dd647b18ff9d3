"""Bytes of weights under a scaling. Oracle: worked out by hand, and the scales that a cast of such a weight has."""

import math

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from octoscale.arena.cost import CODE, Layer, cost_of, layers_of
from octoscale.kernels.ops import quantize
from octoscale.numerics.granularity import along
from octoscale.numerics.recipe import Recipe, parse_scaling

SQUARE = [Layer(shape=(256, 256), is_conv1d=False)] * 3


@pytest.mark.parametrize(
    ("scaling", "bits"),
    [
        ("bf16", 16),
        ("fp32", 32),
        ("amax", 8 + 8 / 65536),
        ("delayed", 8 + 8 / 65536),
        ("cscale:-1", 8),
        ("cscale:weight=3,input=-1", 8),
        ("amax:row", 8 + 8 / 256),
        ("amax:block", 8 + 8 / 16384),
        ("amax:mx", 8.25),
        ("amax:mx,round=up", 8.25),
        ("weight=amax:mx,input=amax", 8.25),
        ("weight=amax,input=amax:mx", 8 + 8 / 65536),
    ],
)
def test_bits_of_a_weight_by_hand(scaling, bits):
    cost = cost_of(SQUARE, parse_scaling(scaling))
    assert cost.values == 3 * 65536
    assert cost.bits_per_value == bits
    assert cost.megabytes == bits * 3 * 65536 / 8e6


@pytest.mark.parametrize("name", ["row", "block", "mx"])
@pytest.mark.parametrize("is_conv1d", [False, True])
def test_scales_are_as_many_as_a_cast_has(name, is_conv1d):
    """Of sizes that end in smaller groups, and of a weight whose sum runs along its first dimension."""
    shape = (40, 300)
    rule = parse_scaling(f"amax:{name}").weight.rule
    cast = quantize(torch.ones(shape), "e4m3fn", rule, granularity=along(name, "weight", sum_first=is_conv1d))
    cost = cost_of([Layer(shape=shape, is_conv1d=is_conv1d)], Recipe.amax(granularity=name))
    assert cost.bits == CODE * 12000 + 8 * cast.scale_bias.numel()


def test_only_layers_that_go_to_fp8_count_and_a_shared_one_once():
    shared = nn.Linear(8, 8)
    model = nn.Sequential(nn.Embedding(4, 8), shared, shared, Conv1D(6, 8), nn.Linear(6, 2))
    layers = layers_of(model, Recipe.amax(skip=["4"]))
    assert layers == [Layer(shape=(8, 8), is_conv1d=False), Layer(shape=(8, 6), is_conv1d=True)]
    assert cost_of(layers, "bf16").values == math.prod((8, 8)) + math.prod((8, 6))
