"""The house: a module imports only from its own layer or a lower one. Oracle: the table of DESIGN.md, as data."""

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import octoscale

SOURCE = Path(octoscale.__file__).parent

#: DESIGN.md, "The house", and docs/TOUR.md. A new module must be placed here. `backends` stands for its submodules.
LAYERS = {
    "formats": 0,
    "reference": 0,
    "runfolder": 0,
    "parts": 1,
    "manifest": 0,
    "run_files": 0,
    "whole_file": 0,
    "companions": 0,
    "terms": 0,
    "heap": 0,
    "checksums": 0,
    "printable": 0,
    "explained": 0,
    "waiting": 0,
    "kinds": 0,
    "lock": 0,
    "streams": 0,
    "whole_folder": 0,
    "validation": 0,
    "layouts": 0,
    "quantization": 0,
    "training": 0,
    "asked": 1,
    "scaling": 1,
    "recipe": 1,
    "safetensors_file": 1,
    "ops": 2,
    "backends": 2,
    "bf16_gemm": 2,
    "telemetry": 3,
    "linear": 3,
    "decoding": 4,
    "fp8_head": 4,
    "huge_pages": 3,
    "fused_backbone": 4,
    "fused_ends": 4,
    "fused_layer": 4,
    "known_layers": 4,
    "usual_path": 4,
    "stored": 3,
    "compiled": 3,
    "watch": 3,
    "convert": 4,
    "reasons": 4,
    "plain": 4,
    "ignore": 4,
    "trial": 5,
    "weight_reads": 1,
    "state": 4,
    "model_state": 4,
    "checkpoint": 4,
    "checkpoint_files": 4,
    "file_names": 1,
    "announced": 4,
    "architectures": 5,
    "fp8_files": 4,
    "calibrate": 4,
    "hf": 4,
    "folder_files": 4,
    "model_errors": 1,
    "package_index": 4,
    "sizes": 1,
    "guard": 4,
    "generation_settings": 4,
    "tokenizer_files": 4,
    "models": 5,
    "hub_data": 5,
    "labeled": 5,
    "tasks": 5,
    "evaluate": 6,
    "sweep": 6,
    "materialize": 6,
    "layerwise": 6,
    "bench": 6,
    "bench_train": 6,
    "bench_generate": 6,
    "bench_checkpoint": 6,
    "gguf_shape": 6,
    "experiment": 6,
    "export": 6,
    "train": 6,
    "train_data": 6,
    "first_batch": 6,
    "classifier_ids": 6,
    "trained_files": 6,
    "trainer": 6,
    "callback": 6,
    "resume": 6,
    "generate": 6,
    "distributed": 6,
    "plan": 6,
    "figures": 7,
    "exponent_figure": 7,
    "run_contents": 7,
    "figure_data": 7,
    "figure_style": 7,
    "training_figures": 7,
    "training_figure_data": 7,
    "terminal": 7,
    "report": 7,
    "showing": 7,
    "cli": 8,
}
TORCH_FREE = [module for module, layer in LAYERS.items() if layer == 0]

MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
    if path != SOURCE / "__init__.py"
}


def layer_of(module: str) -> int:
    """The layer of `ops` or `backends.portable`."""
    return LAYERS[module.split(".")[0]]


def imports(source: str, module: str) -> Iterator[str]:
    """The absolute names that a module's source imports, in functions too, without what only type checkers see."""
    package = ["octoscale", *module.split(".")[:-1]]
    for node in _nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*parent, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.If) and _is_type_checking(node.test) and child in [node.test, *node.body]:
            continue
        yield from _nodes(child)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def own_imports(source: str, module: str) -> list[str]:
    """The modules of the package, without `octoscale.`, that a source imports; a public name means its module."""
    names = [name.split(".")[1:] for name in imports(source, module) if name.split(".")[0] == "octoscale"]
    first = [name[0] for name in names if name]
    return [octoscale._MODULE_OF.get(name, name) for name in first if not name.startswith("__")]


def imports_torch(source: str, module: str) -> bool:
    return any(name.split(".")[0] == "torch" for name in imports(source, module))


def violations(source: str, module: str) -> list[str]:
    """The imports from a higher layer, or of a module that has none."""
    return [
        f"{module} (layer {layer_of(module)}) imports {other} (layer {LAYERS.get(other, 'unknown')})"
        for other in own_imports(source, module)
        if LAYERS.get(other, 99) > layer_of(module)
    ]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_layer(module):
    assert module.split(".")[0] in LAYERS, f"place {module} in a layer, here, in docs/TOUR.md and in DESIGN.md"


@pytest.mark.parametrize("module", [module for module in MODULES if module.split(".")[0] in LAYERS])
def test_a_module_imports_only_from_its_own_layer_or_a_lower_one(module):
    assert violations(MODULES[module].read_text(), module) == []


@pytest.mark.parametrize("module", TORCH_FREE)
def test_layer_0_does_not_import_torch(module):
    assert not imports_torch(MODULES[module].read_text(), module)


@pytest.mark.parametrize(
    "module", ["octoscale", "octoscale.cli.main", *(f"octoscale.{module}" for module in TORCH_FREE)]
)
def test_importing_it_does_not_load_torch(module):
    """Oracle: sys.modules of a fresh interpreter."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)


def test_every_public_name_is_found_where_the_table_says():
    for name in octoscale.__all__:
        module = importlib.import_module(f"octoscale.{octoscale._MODULE_OF[name]}")
        assert getattr(octoscale, name) is getattr(module, name)


def test_an_unknown_public_name_is_named():
    with pytest.raises(AttributeError, match="module 'octoscale' has no attribute 'quantise'"):
        octoscale.quantise  # noqa: B018


# The check itself: what it must see, and what it must not


@pytest.mark.parametrize(
    "source",
    [
        "from octoscale.layers.linear import Fp8Linear",
        "from octoscale import linear",
        "from octoscale import Fp8Linear",
        "import octoscale.layers.linear",
        "import octoscale.layers.linear as layer",
        "from .linear import Fp8Linear",
        "from . import linear",
        "def f():\n    from octoscale.layers.linear import Fp8Linear",
        "class C:\n    def f(self):\n        import octoscale.layers.linear",
        "try:\n    from octoscale import linear\nexcept ImportError:\n    pass",
        "if TYPE_CHECKING:\n    pass\nelse:\n    from octoscale.layers.linear import Fp8Linear",
        "from octoscale.new_module import something",
    ],
)
def test_an_import_from_above_is_seen(source):
    assert len(violations(source, "ops")) == 1


@pytest.mark.parametrize("source", ["from ..linear import Fp8Linear", "from .. import linear"])
def test_a_relative_import_from_a_subpackage_is_seen(source):
    assert len(violations(source, "backends.portable")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from octoscale.numerics.formats import Format",
        "from octoscale import backends, formats",
        "from octoscale.kernels.base import Observed",
        "from octoscale import __version__",
        "import octoscale",
        "import torch.nn",
        "if TYPE_CHECKING:\n    from octoscale.layers.linear import Fp8Linear",
        "import typing\nif typing.TYPE_CHECKING:\n    from octoscale.layers.linear import Fp8Linear",
    ],
)
def test_an_import_from_below_or_for_types_is_allowed(source):
    assert violations(source, "ops") == []


@pytest.mark.parametrize("source", ["import torch", "from torch import nn", "def f():\n    import torch.nn as nn"])
def test_an_import_of_torch_is_seen(source):
    assert imports_torch(source, "formats")
