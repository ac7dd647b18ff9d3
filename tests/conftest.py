"""What the tests of the numerics share: each format in turn, and examples that are the same in every run."""

import hypothesis
import pytest

from octoscale.formats import FORMATS, Format

hypothesis.settings.register_profile("octoscale", derandomize=True, deadline=None)
hypothesis.settings.load_profile("octoscale")


@pytest.fixture(scope="session", params=FORMATS)
def fmt(request) -> Format:
    """Each of the four formats."""
    return FORMATS[request.param]
