"""What the tests of the numerics share: each format in turn, and examples that are the same in every run."""

from collections.abc import Iterator

import hypothesis
import pytest
from implementations import BACKENDS, using

from octoscale.numerics.formats import FORMATS, Format

hypothesis.settings.register_profile("octoscale", derandomize=True, deadline=None)
hypothesis.settings.load_profile("octoscale")


@pytest.fixture(scope="session", params=FORMATS)
def fmt(request) -> Format:
    """Each of the four formats."""
    return FORMATS[request.param]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request) -> Iterator[str]:
    """Each backend in turn, in use while the test runs."""
    with using(request.param):
        yield request.param
