"""Few looks that find what all looks would. Oracle: brute force over every place."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from octoscale.validation.edges import look_around

BEST = 3


def looks(ranks, start, costs=None):
    """The places that were looked at; ranks and costs by place, from -8 on."""
    asked = []
    places = range(-8, len(ranks) - 8)

    def rank(place):
        asked.append(place)
        return ranks[place + 8]

    costs = costs or [BEST - rank for rank in ranks]
    found = look_around(places, start, rank, lambda place: costs[place + 8], BEST)
    assert sorted(asked) == sorted(found)  # once each
    assert list(found) == sorted(found)
    assert all(found[place] == ranks[place + 8] for place in found)
    return found


def filled(found, places):
    """What is said of every place: between two looks of one rank that rank, beyond the outermost looks 0."""
    inside = sorted(found)
    return [
        found[place]
        if place in found
        else found[max(p for p in inside if p < place)]
        if inside[0] < place < inside[-1]
        else 0
        for place in places
    ]


@st.composite
def plateaus(draw):
    """Ranks that rise to a place and fall from it, and a start anywhere on the best of them."""
    left = sorted(draw(st.lists(st.integers(0, BEST), max_size=14)))
    right = sorted(draw(st.lists(st.integers(0, BEST), max_size=14)), reverse=True)
    ranks = [*left, BEST, *right]
    start = draw(st.sampled_from([index for index, rank in enumerate(ranks) if rank == BEST]))
    return ranks, start - 8


@given(plateaus())
@example(([BEST], -8))
@example(([BEST] * 15, -1))
@example(([0] * 7 + [BEST] + [0] * 7, -1))
def test_what_bisection_says_of_every_place_is_what_brute_force_says(case):
    ranks, start = case
    assert filled(looks(ranks, start), range(-8, len(ranks) - 8)) == ranks


@given(plateaus())
def test_each_edge_lies_between_two_places_that_were_looked_at(case):
    ranks, start = case
    found = looks(ranks, start)
    for place in range(-8, len(ranks) - 9):
        if ranks[place + 8] != ranks[place + 9]:
            assert {place, place + 1} <= found.keys()


def test_the_inner_neighbour_of_an_edge_is_looked_at():
    found = looks([0] * 5 + [BEST] * 6 + [0] * 4, -1)
    assert {-4, -3, -2, 1, 2, 3} <= found.keys()


def test_few_looks_are_taken():
    """15 places and an edge on each side: at most the start, three or four a side, and the two inner neighbours."""
    for low in range(8):
        for high in range(7, 15):
            assert len(looks([BEST if low <= i <= high else 0 for i in range(15)], -1)) <= 11
    assert len(looks([0] * 500 + [BEST] * 1000 + [0] * 500, 992)) <= 25


@given(plateaus())
def test_the_search_climbs_to_the_plateau_from_anywhere(case):
    """With a cost that falls towards it."""
    ranks, top = case
    costs = [abs(index - 8 - top) for index in range(len(ranks))]
    for start in (-8, len(ranks) - 9):
        assert filled(looks(ranks, start, costs), range(-8, len(ranks) - 8)) == ranks


def test_without_a_plateau_the_least_bad_place_and_its_neighbours_are_looked_at():
    found = looks([0] * 10, 0, [9, 8, 7, 6, 5, 5.5, 6, 7, 8, 9])
    assert {-5, -4, -3} <= found.keys()
    assert set(found.values()) == {0}


@pytest.mark.parametrize("ranks", [[0, 0, 3, 0, 3, 3, 3, 0], [3, 1, 3, 3], [1, 3, 2, 3, 3], [0, 0, 0, 1, 0, 3, 0, 0]])
def test_where_a_look_sees_ranks_rise_on_the_way_out_all_that_do_not_fail_are_looked_at(ranks):
    assert filled(looks(ranks, len(ranks) - 8 - 3), range(-8, len(ranks) - 8)) == ranks


def test_a_cost_of_infinity_is_no_way_up():
    assert looks([0, 0, 0], -7, [float("inf"), 5.0, float("inf")]).keys() == {-8, -7, -6}


def test_what_fails_outside_is_left_alone_where_the_plateau_is_ragged():
    """A ragged plateau from 5 to 11, and ten places that fail on either side: bisection finds the two ends."""
    found = looks([0] * 13 + [2, 3, 1, 3, 2, 3, 3] + [0] * 10, 10)
    assert {*range(5, 12)} <= found.keys()
    assert len(found) < 16


@given(plateaus(), st.integers(0, 28), st.randoms())
def test_a_plateau_is_found_whatever_the_costs_of_failing_places_say(case, start, random):
    """Trainings that learned nothing differ in their losses by chance."""
    ranks, _ = case
    costs = [random.random() for _ in ranks]
    found = looks(ranks, min(start, len(ranks) - 1) - 8, costs)
    assert max(found.values()) > 0


def test_that_no_place_passes_is_said_after_a_look_at_each():
    assert looks([0] * 15, -3, [(7 * index) % 5 for index in range(15)]) == dict.fromkeys(range(-8, 7), 0)
