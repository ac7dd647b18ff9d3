"""Over which values one scale reaches. Oracle: the shape of the scales, by hand."""

import copy
import pickle

import pytest

from octoscale.numerics.granularity import BLOCK, GRANULARITIES, MX, ROW, SQUARE, TENSOR, along, get_granularity


@pytest.mark.parametrize("shape", [(), (0,), (4, 8), (2, 3, 4)])
def test_a_tensor_has_one_scale(shape):
    assert TENSOR.scale_shape(shape) == ()


@pytest.mark.parametrize(
    ("granularity", "shape", "scales"),
    [
        (ROW, (5, 8), (5, 1)),
        (ROW, (2, 3, 8), (2, 3, 1)),
        (ROW, (8,), (1,)),
        (ROW, (), ()),
        (ROW, (0, 8), (0, 1)),
        (ROW, (5, 0), (5, 1)),
        (ROW.t(), (5, 8), (1, 8)),
        (BLOCK, (5, 256), (5, 2)),
        (BLOCK, (5, 257), (5, 3)),
        (BLOCK, (2, 3, 127), (2, 3, 1)),
        (BLOCK, (5, 0), (5, 0)),
        (BLOCK.t(), (300, 5), (3, 5)),
        (SQUARE, (300, 129), (3, 2)),
        (SQUARE, (1, 1), (1, 1)),
        (MX, (5, 33), (5, 2)),
        (MX, (64,), (2,)),
        (MX.t(), (33, 5), (2, 5)),
    ],
)
def test_each_group_has_a_scale_and_a_rest_its_own(granularity, shape, scales):
    assert granularity.scale_shape(shape) == scales


@pytest.mark.parametrize("granularity", [ROW.t(), BLOCK.t(), SQUARE, MX.t()])
@pytest.mark.parametrize("shape", [(8,), (2, 3, 4)])
def test_groups_of_several_rows_are_of_a_matrix(granularity, shape):
    with pytest.raises(ValueError, match=r"groups of .* are of a matrix, and this tensor is .*: view it as a matrix"):
        granularity.scale_shape(shape)


@pytest.mark.parametrize("granularity", [TENSOR, ROW, BLOCK, MX, SQUARE])
def test_a_transpose_has_the_transposed_groups(granularity):
    assert granularity.t().t() == granularity
    assert granularity.t().group == granularity.group[::-1]
    assert (granularity.t() == granularity) == (granularity in (TENSOR, SQUARE))


def test_the_role_and_the_direction_of_the_sum_choose_the_groups():
    assert along("tensor", "weight") is along("tensor", "input", sum_first=True) is TENSOR
    assert along("block", "weight").group == along("block", "weight", sum_first=True).group == (128, 128)
    assert along("block", "input").group == along("block", "grad_output").group == (1, 128)
    assert along("row", "weight").group == (1, None)
    assert along("row", "weight", sum_first=True).group == (None, 1)
    assert along("mx", "weight", sum_first=True).group == (32, 1)


@pytest.mark.parametrize("name", GRANULARITIES)
def test_a_granularity_is_found_by_its_name(name):
    assert get_granularity(name).name == str(get_granularity(name)) == name
    assert pickle.loads(pickle.dumps(get_granularity(name))) == get_granularity(name)


def test_a_copy_of_the_granularity_of_tensors_is_itself():
    """Backends know it by that."""
    assert pickle.loads(pickle.dumps(TENSOR)) is copy.deepcopy(TENSOR) is copy.copy(TENSOR) is TENSOR


def test_an_unknown_granularity_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="unknown granularity 'column': one of tensor, row, block, mx"):
        get_granularity("column")
