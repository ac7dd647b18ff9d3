"""A pytest plugin: the tests run on a core built with sanitizers, the one that OCTOSCALE_SANITIZED_CORE names.

`./dev test --sanitize` builds it and loads this plugin. It puts the sanitized module in the place of the installed one
before anything imports that, and fails if it comes too late.
"""

import importlib.util
import os
import sys
from pathlib import Path

NAME = "octoscale.kernels._core"

if NAME in sys.modules:
    raise RuntimeError(f"{NAME} was imported before the plugin `sanitized`")
_path = Path(os.environ["OCTOSCALE_SANITIZED_CORE"])
if not _path.is_file():
    raise RuntimeError(f"OCTOSCALE_SANITIZED_CORE={_path}: there is no such core; ./dev test --sanitize builds it")
if b"__asan_init" not in _path.read_bytes():
    raise RuntimeError(f"OCTOSCALE_SANITIZED_CORE={_path}: this core was built without AddressSanitizer")
_spec = importlib.util.spec_from_file_location(NAME, _path)
assert _spec is not None
assert _spec.loader is not None
_core = importlib.util.module_from_spec(_spec)
sys.modules[NAME] = _core
_spec.loader.exec_module(_core)


def pytest_report_header() -> str:
    """The core that the tests run on."""
    return f"sanitized core: {_core.__file__}"


def pytest_collection_finish() -> None:
    """Fail before the first test if the package uses another core; the header above is not asked for with -q."""
    from octoscale.kernels import native

    assert native._core is _core, "the tests run on another core"
