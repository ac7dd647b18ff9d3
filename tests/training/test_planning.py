"""The words of plan, and the choice of a mesh. Oracles: arithmetic by hand, and a search that leaves nothing out."""

import pytest

from octoscale.distributed.mesh import Parallel
from octoscale.distributed.plan import Held
from octoscale.system.errors import UserError
from octoscale.training.meshes import Search, meshes, tensor_parallel, words_of
from octoscale.training.planning import Planning, bytes_of


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GB", 80 * 10**9), ("80GiB", 80 * 2**30), ("1.5 TB", 1_500_000_000_000), ("512MiB", 2**29), ("1KB", 1000)],
)
def test_memory_as_it_is_written(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["80", "GB", "", "80gb", "-8GB", "0GB", "8 GB or so", "1.2.3GB", "nanGB", "1e3GB"])
def test_memory_that_is_none(text):
    with pytest.raises(UserError, match=r"--memory .*: a number and its unit, as in 80GB"):
        bytes_of(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"gpus": 0}, "--gpus 0: must be at least 1"),
        ({"gpus": 10**30}, "at most 131,072"),
        ({"memory": "9" * 5000 + "GB"}, "--memory 9"),
        ({"seq": -1}, "--seq -1: must be at least 1"),
        ({"batch": 0}, "--batch 0"),
        ({"bandwidth": 0.0}, "--bandwidth 0.0: GB/s, above 0"),
        ({"bandwidth": float("nan")}, "--bandwidth nan"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"scaling": "fp32"}, "--dtype fp32"),
        ({"scaling": "amx"}, "unknown scaling 'amx'"),
        ({"amax_group": "all"}, "unknown amax group 'all': one of replica, world"),
        ({"memory": "much"}, "--memory much"),
    ],
)
def test_words_that_mean_nothing(words, message):
    with pytest.raises(UserError, match=message):
        Planning(model="gpt-111m", **words)


def test_meshes_in_order():
    assert [[(mesh.fsdp, mesh.tp) for mesh in group] for group in meshes(6, [1, 2])] == [
        [(1, 1)],
        [(2, 1), (1, 2)],
        [(3, 1)],
        [(6, 1), (3, 2)],
    ]
    assert tensor_parallel([64, 8], 512) == [1, 2, 4, 8]
    assert tensor_parallel([12, None], 512) == [1, 2, 4]
    assert tensor_parallel([64, 8], 2) == [1, 2]
    assert words_of(Parallel(fsdp=2, tp=4)) == "fsdp=2,tp=4"
    assert words_of(Parallel(replicate=3)) == "fsdp=1,replicate=3"


def held_by(parallel, states=1000, activations=100):
    """States are shared out, activations by tp alone; tp costs most."""
    mine = states // parallel.num_ranks
    return Held(
        parameters=mine,
        casts=0,
        activations=activations // parallel.tp,
        peaks={"all": mine + activations // parallel.tp},
        moved={"all-gather": states * (parallel.fsdp - 1) + 10_000 * (parallel.tp - 1)},
        messages={},
    )


def search(memory, asked=None, **sizes):
    """Over such holdings."""

    def simulate(parallel):
        if asked is not None:
            asked.append(parallel)
        return held_by(parallel, **sizes)

    return Search(memory=memory, least=sizes.get("states", 1000), simulate=simulate, regime=lambda _: None)


@pytest.mark.parametrize("memory", [1200, 1100, 700, 300, 150, 112, 40, 20])
def test_the_smallest_that_fits_then_the_cheapest(memory):
    """Oracle: all meshes."""
    groups = list(meshes(64, [1, 2, 4, 8]))
    fits = [
        (mesh.num_ranks, held_by(mesh).communication, mesh)
        for group in groups
        for mesh in group
        if held_by(mesh).peak <= memory
    ]
    expected = min(fits, key=lambda one: one[:2], default=(0, 0, None))[2]
    assert search(memory).smallest(groups)[0] == expected


def test_what_cannot_fit_is_not_simulated():
    asked = []
    parallel, best = search(70, asked).smallest(meshes(64, [1, 2]))
    assert parallel == Parallel(fsdp=32, tp=2)
    assert sum(mesh.tp == 1 for mesh in asked) == 1  # its activations alone are more than there is
    parallel, best = search(30, [], activations=400).smallest(meshes(64, [1, 2]))
    assert parallel is None
    assert best is not None
    assert best.peak > 30
    assert search(1, [], states=10**6).smallest(meshes(8, [1])) == (None, None)
