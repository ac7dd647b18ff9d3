"""Layers whose scale lies far from that of their kind. Oracle: tables of a few layers, made by hand."""

import pytest

from octoscale.advise.outliers import Outlier, Wanted, scale_outliers


def model(**changed):
    """Four decoder layers of three linear layers each; `changed`: name -> (weight, input) that are added."""
    kinds = {"up": ("ffn_in", 9, 5), "gate": ("ffn_in", 8, 5), "down": ("ffn_out", 7, 3)}
    return [
        Wanted(
            module=f"{layer}.{name}",
            layer=layer,
            kind=kind,
            biases={
                "weight": weight + changed.get(f"{name}{layer}", (0, 0))[0],
                "input": bias + changed.get(f"{name}{layer}", (0, 0))[1],
            },
        )
        for layer in range(4)
        for name, (kind, weight, bias) in kinds.items()
    ]


def test_alike_layers_have_none():
    assert scale_outliers(model()) == []
    assert scale_outliers(model(up1=(4, -4))) == []
    assert scale_outliers([]) == []


@pytest.mark.parametrize("away", [6, -6, 12])
def test_far_is_six_binades_from_the_median(away):
    assert scale_outliers(model(down2=(0, away))) == [Outlier(module="2.down", away={"input": away})]
    assert scale_outliers(model(down2=(0, away - away // abs(away)))) == (
        [] if abs(away) == 6 else [Outlier(module="2.down", away={"input": away - 1})]
    )


def test_a_pair_comes_first_and_names_what_feeds_it():
    """down's weight is 2**12 too large, and its input 2**12 too small, as up's weight is 2**12 too small."""
    pair, other = scale_outliers(model(up1=(12, 0), down1=(-12, 12), down3=(0, -20)))
    assert pair == Outlier(module="1.down", away={"weight": -12, "input": 12}, fed_by=("1.up",))
    assert pair.is_pair
    assert not other.is_pair
    assert other.module == "3.down"
    assert "1.up before it" in str(pair)


@pytest.mark.parametrize("changed", [{"up2": (12, 0)}, {"gate1": (-12, 0)}, {"up1": (12, 12)}])
def test_what_does_not_explain_a_pair_is_an_outlier_of_its_own(changed):
    """Of another decoder layer, to the same side, or with an input that is off itself."""
    found = scale_outliers(model(down1=(-12, 12), **changed))
    assert [len(each.fed_by) for each in found] == [0, 0]


def test_a_tensor_of_zeros_has_no_voice():
    layers = [*model(), Wanted(module="4.up", layer=4, kind="ffn_in", biases={"weight": 9})]
    assert scale_outliers(layers) == []
