"""Over which values one scale reaches. Oracle: the shape of the scales, by hand."""

import pickle

import pytest

from octoscale.numerics.granularity import GRANULARITIES, TENSOR, get_granularity


@pytest.mark.parametrize("shape", [(), (0,), (4, 8), (2, 3, 4)])
def test_a_tensor_has_one_scale(shape):
    assert TENSOR.scale_shape(shape) == ()


@pytest.mark.parametrize("name", GRANULARITIES)
def test_a_granularity_is_found_by_its_name(name):
    assert get_granularity(name).name == str(get_granularity(name)) == name
    assert pickle.loads(pickle.dumps(get_granularity(name))) == get_granularity(name)


def test_an_unknown_granularity_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="unknown granularity 'block': one of tensor"):
        get_granularity("block")
