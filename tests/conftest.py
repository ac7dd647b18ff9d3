"""What the tests of the numerics share: each format in turn."""

import pytest

from octoscale.formats import FORMATS, Format


@pytest.fixture(scope="session", params=FORMATS)
def fmt(request) -> Format:
    """Each of the four formats."""
    return FORMATS[request.param]
