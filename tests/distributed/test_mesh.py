"""The words of --parallel, and ranks that have to be of one mind."""

import pytest
from many import disagreeing, norms
from ranks import two_ranks  # noqa: F401

from octoscale.distributed.mesh import Parallel
from octoscale.system.errors import UserError


@pytest.mark.parametrize(
    ("text", "ranks", "expected"),
    [
        (None, 1, (1, 1, 1)),
        (None, 8, (1, 8, 1)),
        ("fsdp=4,tp=2,replicate=2", 16, (2, 4, 2)),
        ("tp=3", 3, (1, 1, 3)),
        (" replicate=2 , fsdp=2", 4, (2, 2, 1)),
    ],
)
def test_words_mean_a_mesh(text, ranks, expected):
    found = Parallel.parse(text, ranks)
    assert (found.replicate, found.fsdp, found.tp) == expected
    assert found.num_batches == expected[0] * expected[1]


@pytest.mark.parametrize(
    "text", ["", "fsdp", "fsdp=0", "fsdp=-1", "fsdp=2,fsdp=2", "rows=2", "fsdp=two", "fsdp=2;tp=1", "fsdp=²"]
)
def test_other_words_are_refused(text):
    with pytest.raises(UserError, match="numbers of ranks, as in fsdp=4,tp=2,replicate=2"):
        Parallel.parse(text, 2)


def test_another_number_of_ranks_is_named():
    with pytest.raises(UserError, match="is for 8 ranks, and there is 1: start it with torchrun --nproc-per-node 8"):
        Parallel.parse("fsdp=8", 1)


def test_ranks_that_say_different_things_all_hear_who_and_what(two_ranks):  # noqa: F811
    heard = two_ranks.call(disagreeing, {"seed": (0, 0), "scaling": ("amax", "cscale:2")})
    assert heard == ["rank 1 has another scaling than rank 0: cscale:2, not amax"] * 2
    assert two_ranks.call(disagreeing, {"seed": (0, 0)}) == [None, None]


@pytest.mark.parametrize(("fsdp", "tp"), [(2, 1), (1, 2)])
@pytest.mark.parametrize("name", ["llama", "tied", "uneven"])
def test_the_norm_is_that_of_all_values(name, fsdp, tp, two_ranks):  # noqa: F811
    for found, expected in two_ranks.call(norms, name, fsdp, tp):
        assert found == pytest.approx(expected, rel=1e-7)
