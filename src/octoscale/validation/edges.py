"""Where a plateau ends, by few looks: bisection to each side of a place inside it.

    look_around(range(-8, 7), start=-1, rank=..., cost=...)        the places that were looked at, and their ranks

`rank` says how well a place does, from 0 (it fails) to `best`; each look is dear, so it is asked once a place. From
`start` the search climbs towards lower cost until a place has the best rank, or both its neighbours cost no less. If
that one fails, the costs led astray, as those of trainings that learned nothing do: then all places are looked at, in
ever smaller strides, until one does not fail, and the climb goes on there. From its top it bisects to each side,
wherever the ranks of two looks differ, until they are neighbours: each edge, of the plateau and of the undecided places
beside it, then lies between two places that were looked at. Beyond either end all is taken to fail, so an end is looked
at only if the plateau may reach it.

Bisection trusts that the ranks only fall on the way out. The inner neighbour of each edge is looked at too; if it, or
any other look, ranks below one farther out, that trust is gone: then every place is looked at from the lowest to the
highest one that does not fail.
"""

from collections.abc import Callable, Sequence


def look_around(
    places: Sequence[int], start: int, rank: Callable[[int], int], cost: Callable[[int], float], best: int
) -> dict[int, int]:
    """Place -> rank, of those of the ascending `places` that were looked at; `start` is one of them.

    rank: 0..best, asked once a place. cost: asked only of places whose rank was; infinity, not NaN, for the worst.
    """
    known: dict[int, int] = {}

    def look(index: int) -> int:
        """The rank of a place by its index; 0 beyond the ends."""
        if not 0 <= index < len(places):
            return 0
        if index not in known:
            known[index] = rank(places[index])
        return known[index]

    def climb(index: int) -> int:
        return _climb(index, len(places), look, lambda index: cost(places[index]), best)

    top = climb(places.index(start))
    if look(top) == 0:
        top = climb(_seek(top, len(places), look))
    for step in (-1, 1):
        _bisect(top, -1 if step < 0 else len(places), look)
        edge = _edge(top, step, known, best)
        if edge is not None and edge != top:
            look(edge - step)
    if not _falls_outwards(known, top):
        _look_between(known, look)
    return {places[index]: known[index] for index in sorted(known)}


def _climb(start: int, length: int, look: Callable[[int], int], cost: Callable[[int], float], best: int) -> int:
    """The index of a place of the best rank, or of one whose neighbours cost no less."""
    here, is_moving = start, True
    while is_moving and look(here) < best:
        near = [index for index in (here + 1, here - 1) if 0 <= index < length]
        place = max([here, *near], key=lambda index: (look(index), -cost(index)))
        here, is_moving = place, place != here
    return here


def _seek(start: int, length: int, look: Callable[[int], int]) -> int:
    """The index of a place that does not fail, near ones of each stride first; `start` if all places fail."""
    strides = [2**power for power in reversed(range((length - 1).bit_length()))]
    near = [sorted(range(start % stride, length, stride), key=lambda index: abs(index - start)) for stride in strides]
    return next((index for places in near for index in places if look(index) > 0), start)


def _bisect(inner: int, outer: int, look: Callable[[int], int]) -> None:
    """Look between two places until ranks differ between neighbours only."""
    if abs(outer - inner) > 1 and look(inner) != look(outer):
        middle = (inner + outer) // 2
        look(middle)
        _bisect(inner, middle, look)
        _bisect(middle, outer, look)


def _edge(top: int, step: int, known: dict[int, int], best: int) -> int | None:
    """The outermost place of the best rank on one side."""
    side = [index for index in known if (index - top) * step >= 0 and known[index] == best]
    return max(side, key=lambda index: index * step, default=None)


def _falls_outwards(known: dict[int, int], top: int) -> bool:
    """Whether no place ranks below one farther out on its side."""
    below = [known[index] for index in sorted(known) if index <= top]
    above = [known[index] for index in sorted(known, reverse=True) if index >= top]
    return below == sorted(below) and above == sorted(above)


def _look_between(known: dict[int, int], look: Callable[[int], int]) -> None:
    """Look at every place from the lowest to the highest one that does not fail, and at the next one on either side."""
    alive = [index for index in known if known[index] > 0]
    low, high = min(alive), max(alive)
    for index in range(low, high):
        look(index)
    while look(low - 1) > 0:
        low -= 1
    while look(high + 1) > 0:
        high += 1
