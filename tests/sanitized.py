"""A pytest plugin: the tests run on a core built with sanitizers, the one that OCTOSCALE_SANITIZED_CORE names.

`./dev test --sanitize` builds it and loads this plugin. It puts the sanitized module in the place of the installed one
before anything imports that, and fails if it comes too late.
"""

import importlib.util
import os
import sys

NAME = "octoscale.backends._core"

if NAME in sys.modules:
    raise RuntimeError(f"{NAME} was imported before the plugin `sanitized`")
_spec = importlib.util.spec_from_file_location(NAME, os.environ["OCTOSCALE_SANITIZED_CORE"])
assert _spec is not None
assert _spec.loader is not None
_core = importlib.util.module_from_spec(_spec)
sys.modules[NAME] = _core
_spec.loader.exec_module(_core)


def pytest_report_header() -> str:
    """The core that the tests run on."""
    from octoscale.backends import native

    assert native._core is _core, "the tests run on another core"
    return f"sanitized core: {_core.__file__}"
