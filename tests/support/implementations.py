"""The backends that this machine can run, by name: the tests of the numerics run over each of them."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

from octoscale.kernels import portable, table
from octoscale.kernels.base import held_formats

#: The formats that backends cast to; those of which torch has no dtype are the reference's alone.
HELD = {fmt.name: fmt for fmt in held_formats().values()}

BACKENDS = {"portable": portable}
if importlib.util.find_spec("octoscale.kernels._core"):
    from octoscale.kernels.native import Native, available
    from octoscale.kernels.operators import Operators

    BACKENDS |= {f"native[{isa}]": Operators(Native(isa)) for isa in available()}


@contextmanager
def using(name: str) -> Iterator[None]:
    """Inside the block the package uses this backend, whatever this machine would choose."""
    choice = replace(table.choose("cpu"), name=name.partition("[")[0], backend=BACKENDS[name])
    with mock.patch.object(table, "choose", return_value=choice):
        yield
