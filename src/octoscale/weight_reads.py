"""Linear layers whose weight a model's own code reads, past their forward: found in its source.

    reads_of(MambaMixer)        {"dt_proj": "a product reads its weight without calling it"}

Most models call their layers. Some multiply with `self.dt_proj.weight` themselves (Mamba), hand weights to a function
of torch (WavLM), cast an input to `self.wo.weight.dtype` (T5), or scale a weight in place (RWKV). Where a layer is
never called, it would be reported as FP8 and never be; where the dtype is read, a weight of FP8 codes would be taken
for the dtype of the activations. Code that cannot be read (made at run time) says nothing here: `inspect --run` does.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import nn

#: Methods that prepare a model, before anything is converted or after it was.
_PREPARING = frozenset({"__init__", "reset_parameters", "get_output_embeddings", "extra_repr"})
#: What can be asked of a weight without touching its values.
_HARMLESS = frozenset({"device", "shape", "ndim", "requires_grad", "grad", "numel", "size", "dim", "stride", "is_cuda"})

BYPASSED = "its weight is read without calling it"
TYPED = "code around it reads the dtype of its weight"
WRITTEN = "code around it writes to its weight"


@dataclass(frozen=True)
class Read:
    """A layer by its path below a module (or below any module, in `anywhere`), and what is done with its weight."""

    path: str
    anywhere: bool
    what: str


def why_kept(model: nn.Module, *, stored: bool) -> dict[str, str]:
    """Name of a module -> why it stays out of FP8. stored: codes take the weight's place, so reads of dtypes count."""
    kept: dict[str, str] = {}
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    for parent, module in model.named_modules(remove_duplicate=False):
        for read in reads_of(type(module)):  # type: ignore[arg-type]
            if not stored and read.what != BYPASSED:
                continue
            full = f"{parent}.{read.path}" if parent else read.path
            end = f".{read.path}"
            below = f"{parent}." if parent else ""
            found = [n for n in names if n.startswith(below) and n.endswith(end)] if read.anywhere else [full]
            for name in found:
                kept.setdefault(name, f"{type(module).__name__}: {read.what}")
    return kept


@cache
def reads_of(cls: type[nn.Module]) -> tuple[Read, ...]:
    """The weights of its layers that a class reads or writes in its own methods, those it inherits included."""
    found: dict[str, Read] = {}
    methods = list(_methods_of(cls))
    called = {path for method in methods for path in _calls(method)}
    for method in methods:
        for read in _reads(method, called):
            found.setdefault(read.path, read)
    return tuple(found.values())


def _methods_of(cls: type) -> Iterator[ast.FunctionDef]:
    """The methods of a model's class, as they stand in its source; nothing of torch's own classes."""
    seen: set[str] = set()
    for base in cls.__mro__:
        if base.__module__.startswith(("torch.", "octoscale.")) or base.__name__ == "PreTrainedModel":
            continue
        for method in _classes_in(base.__module__).get(base.__qualname__, ()):
            prepares = method.name in _PREPARING or "init" in method.name or "tie" in method.name
            if method.name not in seen and not prepares:
                yield method
            seen.add(method.name)


@cache
def _classes_in(module: str) -> dict[str, tuple[ast.FunctionDef, ...]]:
    """Class -> its methods, of a module's source file; nothing where there is no such file."""
    path = getattr(sys.modules.get(module), "__file__", None)
    if path is None or not path.endswith(".py"):
        return {}
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return {}
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {node.name: tuple(item for item in node.body if isinstance(item, ast.FunctionDef)) for node in classes}


def _calls(method: ast.FunctionDef) -> Iterator[str]:
    """The paths below self that a method calls."""
    for node in ast.walk(method):
        if isinstance(node, ast.Call):
            root, path = _path_of(node.func)
            if root == "self":
                yield path


def _reads(method: ast.FunctionDef, called: set[str]) -> Iterator[Read]:
    parents = {child: node for node in ast.walk(method) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(method):
        if not (isinstance(node, ast.Attribute) and node.attr == "weight"):
            continue
        root, path = _path_of(node.value)
        what = _what_is_done(node, parents, path in called or root != "self")
        if path and what is not None:
            yield Read(path=path, anywhere=root != "self", what=what)


def _what_is_done(node: ast.Attribute, parents: dict[ast.AST, ast.AST], is_called: bool) -> str | None:
    """What a method does with `x.weight`; None if it is nothing that matters."""
    parent = parents[node]
    if isinstance(parent, ast.Attribute):
        if parent.attr == "dtype":
            return TYPED
        if parent.attr.endswith("_") and not parent.attr.startswith("_"):
            return WRITTEN
        if parent.attr in _HARMLESS or parent.attr.isupper():
            return None
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.MatMult):
        return BYPASSED
    is_asked = isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name)  # isinstance(x.weight, ...)
    return None if is_called or is_asked else BYPASSED


def _path_of(node: ast.expr) -> tuple[str, str]:
    """The name that a chain of attributes begins with ("" if it is none), and the rest, after any index."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return (node.id if isinstance(node, ast.Name) else "", ".".join(parts))
