"""What tests of several rooms share: each format and backend in turn, the command line, examples that stay the same."""

import sys
from collections.abc import Iterator

import hypothesis
import pytest
from implementations import BACKENDS, HELD, using

from octoscale.cli import main as cli
from octoscale.numerics.formats import FORMATS, Format

hypothesis.settings.register_profile("octoscale", derandomize=True, deadline=None)
hypothesis.settings.load_profile("octoscale")


@pytest.fixture(scope="session", params=HELD)
def fmt(request) -> Format:
    """Each of the formats whose codes a tensor can hold."""
    return HELD[request.param]


@pytest.fixture(scope="session", params=FORMATS)
def any_format(request) -> Format:
    """Each of the formats, those of which torch has no dtype as well."""
    return FORMATS[request.param]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request) -> Iterator[str]:
    """Each backend in turn, in use while the test runs."""
    with using(request.param):
        yield request.param


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run `octoscale ARGS` in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["octoscale", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return call


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that fork come first: polars' threads, once it has been used, are not there after a fork, and it hangs."""
    items.sort(key=lambda item: item.get_closest_marker("forks") is None)
