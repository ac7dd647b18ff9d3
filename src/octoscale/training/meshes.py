"""The choice of a mesh: the smallest that fits, and of these the one whose ranks send least.

    Search(...).smallest(meshes(512, [1, 2, 4, 8]))        the mesh, and what a rank of it holds

Every number of ranks divides the number that there are, so that all can be used. Tensor parallel stays inside of a
machine, and divides the heads. To simulate a mesh takes seconds, so one that cannot fit, as a smaller one has shown,
is left out.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from octoscale.distributed.mesh import Parallel
from octoscale.distributed.plan import Held

#: As many ranks as most machines with GPUs have.
MACHINE = 8

#: What a mesh says of a larger one is no more exact than this: rows are cut up unevenly.
_EXACT = 0.98


@dataclass(frozen=True, kw_only=True)
class Search:
    """What there is to fit into, and what it takes.

    memory: bytes of a rank. least: bytes that no mesh does without, of all ranks together. simulate: what a rank holds.
    regime: what of a mesh changes the kind of the step; of one kind, a larger mesh only shares out more.
    """

    memory: int
    least: int
    simulate: Callable[[Parallel], Held]
    regime: Callable[[Parallel], object]

    def smallest(self, groups: Iterable[list[Parallel]]) -> tuple[Parallel | None, Held | None]:
        """The first group's with one that fits, its cheapest; else no mesh, and the least that a rank would hold."""
        known: dict[object, tuple[int, Held]] = {}
        best: Held | None = None
        for group in groups:
            found = []
            for parallel in group:
                kind = (parallel.tp, self.regime(parallel))
                if self.least / parallel.num_ranks > self.memory or self._cannot_fit(known.get(kind), parallel):
                    continue
                held = self.simulate(parallel)
                known[kind] = parallel.fsdp, held
                best = held if best is None or held.peak < best.peak else best
                if held.peak <= self.memory:
                    found.append((held.communication, parallel.tp, parallel, held))
            if found:
                _, _, parallel, held = min(found, key=lambda one: one[:2])
                return parallel, held
        return None, best

    def _cannot_fit(self, before: tuple[int, Held] | None, parallel: Parallel) -> bool:
        """Whether this mesh holds too much, as one with fewer fsdp ranks shows: at most its states are shared out."""
        if before is None:
            return False
        fsdp, held = before
        return (held.peak - held.states * (1 - fsdp / parallel.fsdp)) * _EXACT > self.memory


def tensor_parallel(heads: Iterable[int | None], ranks: int) -> list[int]:
    """The numbers of tp ranks that divide the heads."""
    counts = [count for count in heads if count is not None]
    return [tp for tp in (1, 2, 4, MACHINE) if tp <= ranks and all(count % tp == 0 for count in counts)]


def meshes(ranks: int, tps: Iterable[int]) -> Iterator[list[Parallel]]:
    """Those of each number of ranks that divides `ranks`, the smallest number first."""
    sizes = list(tps)
    for number in (number for number in range(1, ranks + 1) if ranks % number == 0):
        yield [Parallel(fsdp=number // tp, tp=tp) for tp in sizes if number % tp == 0]


def words_of(parallel: Parallel) -> str:
    """As octoscale train takes it behind --parallel."""
    sizes = {"fsdp": parallel.fsdp, "tp": parallel.tp, "replicate": parallel.replicate}
    return ",".join(f"{name}={size}" for name, size in sizes.items() if size > 1 or name == "fsdp")
