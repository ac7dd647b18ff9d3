"""Linear layers whose weight a model's own code reads, past their forward: found in its source.

    why_kept(mamba)        {"backbone.layers.0.mixer.dt_proj": "MambaMixer: its weight is read without calling it", ...}

Most models call their layers. Some multiply with `self.dt_proj.weight` themselves (Mamba), hand weights to a function
of torch (WavLM, torch's MultiheadAttention), cast an input to `self.wo.weight.dtype` (T5), or scale a weight in place
(RWKV). A layer that is never called would be reported as FP8 and never be; where the dtype is read, a weight of FP8
codes would be taken for the dtype of the activations. They stay, in memory as in files, so that both compute the same.

A branch on the model's settings counts if the model takes it, in training or in inference: Bloom's `if
self.pretraining_tp > 1` is asked of the model. Code that cannot be read (made at run time) says nothing here:
`inspect --run` does.
"""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

from torch import nn

from octoscale.conversion.kinds import WRAPPED

BYPASSED = "its weight is read without calling it"
TYPED = "code around it reads the dtype of its weight"
WRITTEN = "code around it writes to its weight"

#: Methods that prepare a model, before anything is converted or after it was.
_PREPARING = re.compile(r"__init__|_*(init|initialize|reset|tie|set|prune|resize)(_\w*)?|get_\w*_embeddings|extra_repr")
#: What can be asked of a weight without touching its values.
_HARMLESS = frozenset({"device", "shape", "ndim", "requires_grad", "grad", "numel", "size", "dim", "stride", "is_cuda"})
#: The same, by functions.
_ASKING = frozenset({"isinstance", "hasattr", "getattr", "type", "id", "len"})
#: Functions that multiply: who hands them a weight does not call the layer. Others are kernels for a whole block.
_PRODUCTS = frozenset({"linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "multi_head_attention_forward"})
#: In a text of code: a weight that is not the module's own, as a norm's `self.weight` is, and no string's last word.
_FOREIGN = re.compile(r"(?<!\bself)\.weight\b(?![\"'])")
#: Where no layer's parent is defined: lists and sequences, nn.Module, what transformers' models inherit, and wrappers.
_NOT_READ = ("torch.nn.modules.container", "torch.nn.modules.module", "transformers.modeling_utils")
_NOT_READ_BELOW = ("octoscale.", "peft.", "accelerate.")

#: A test of a branch that only the model's own attributes decide, and the outcome that leads to a place.
Condition = tuple[CodeType, bool]


@dataclass(frozen=True)
class Use:
    """A layer that a class calls, or whose weight it reads, by its path below the module (or any, in `anywhere`)."""

    path: str
    anywhere: bool
    what: str
    by_product: bool
    conditions: tuple[Condition, ...]

    def happens_in(self, module: "_InMode") -> bool:
        """Whether the module's settings lead there, as far as they tell."""
        return all(_outcome(test, module) in (None, wanted) for test, wanted in self.conditions)


class _InMode:
    """A module's attributes, as if it were in training, or in inference."""

    def __init__(self, module: nn.Module, *, training: bool) -> None:
        self._module, self.training = module, training

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


_CALLED = "called"


def why_kept(model: nn.Module) -> dict[str, str]:
    """Name of a layer -> why it stays out of FP8."""
    kept: dict[str, str] = {}
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    for parent, module in model.named_modules(remove_duplicate=False):
        for path, anywhere, what in _reads_in(module):
            below = f"{parent}." if parent else ""
            full = f"{below}{path}"
            ends = [n for n in names if n.startswith(below) and n.endswith(f".{path}")] if anywhere else []
            for name in [full, *ends]:
                for layer in (name, f"{name}{WRAPPED}"):
                    kept.setdefault(layer, f"{type(module).__name__}: {what}")
    _source_of.cache_clear()  # what a tree said of each class is kept
    return kept


def _reads_in(module: nn.Module) -> Iterator[tuple[str, bool, str]]:
    """Path, anywhere, and what is done, of the weights that a module's code reads or writes to, given its settings."""
    uses = () if next(module.children(), None) is None else _uses_of(type(module))  # type: ignore[arg-type]
    for training in (False, True) if uses else ():
        alive = [use for use in uses if use.happens_in(_InMode(module, training=training))]
        called = {use.path for use in alive if use.what == _CALLED}
        for use in alive:
            is_called = use.what == BYPASSED and use.path in called and not use.by_product
            if use.what != _CALLED and not is_called:
                yield use.path, use.anywhere, use.what


@cache
def _uses_of(cls: type[nn.Module]) -> tuple[Use, ...]:
    """What a class does with its layers, in its own methods, those it inherits, and functions beside it.

    Nothing if it reads no weight.
    """
    functions = list(_functions_of(cls))
    if not any(isinstance(node, ast.Attribute) and node.attr == "weight" for f in functions for node in ast.walk(f)):
        return ()
    return tuple(use for function in functions for use in _Reader(function).uses)


def _functions_of(cls: type) -> Iterator[ast.FunctionDef]:
    """The methods of a model's class, and the functions of its file that they name, as they stand in the source."""
    seen: set[str] = set()
    for base in cls.__mro__:
        if base.__module__ in _NOT_READ or base.__module__.startswith(_NOT_READ_BELOW):
            continue
        source = _source_of(base.__module__)
        for method in source.methods.get(base.__name__, ()):
            if method.name not in seen and method.name in source.used and not _PREPARING.fullmatch(method.name):
                yield method
                named = {node.id for node in ast.walk(method) if isinstance(node, ast.Name)}
                yield from (source.functions[name] for name in sorted(named & set(source.functions) - seen))
                seen |= named
            seen.add(method.name)


@dataclass(frozen=True)
class Source:
    """A file of code: class -> its methods, its functions, and the names that anything in it uses."""

    methods: dict[str, list[ast.FunctionDef]]
    functions: dict[str, ast.FunctionDef]
    used: frozenset[str]


@cache
def _source_of(module: str) -> Source:
    """The source file of a module; nothing where there is none, or where it reads no other module's weight.

    Half of the models' files read none, and a tree of one takes 17 MB, which do not all go back to the system.
    """
    path = getattr(sys.modules.get(module), "__file__", None)
    try:
        text = Path(path).read_text(encoding="utf-8") if path and path.endswith(".py") else ""
        tree = ast.parse(text if _FOREIGN.search(text) else "")
    except (OSError, ValueError, SyntaxError):
        tree = ast.parse("")
    methods: dict[str, list[ast.FunctionDef]] = {}
    used = {"forward", "__call__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            methods.setdefault(node.name, []).extend(item for item in node.body if isinstance(item, ast.FunctionDef))
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return Source(methods, functions, frozenset(used))


class _Reader(ast.NodeVisitor):
    """Collects what one function does with layers, and under which conditions."""

    def __init__(self, function: ast.FunctionDef) -> None:
        self.uses: list[Use] = []
        self._parents = {child: node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}
        self._conditions: tuple[Condition, ...] = ()
        self._aliases = dict(_aliases_in(function))
        self._visit_all(function.body)

    def visit_If(self, node: ast.If) -> None:
        """Each branch, under the test that leads to it."""
        self.visit(node.test)
        before = self._conditions
        for branch, wanted in ((node.body, True), (node.orelse, False)):
            self._conditions = before + _conditions_of(node.test, wanted)
            self._visit_all(branch)
        self._conditions = before

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """The same of `a if test else b`."""
        self.visit(node.test)
        before = self._conditions
        for branch, wanted in ((node.body, True), (node.orelse, False)):
            self._conditions = before + _conditions_of(node.test, wanted)
            self.visit(branch)
        self._conditions = before

    def visit_Call(self, node: ast.Call) -> None:
        """A call of a layer is noted."""
        root, path = self._path_of(node.func)
        if root == "self" and path:
            self._note(path, anywhere=False, what=_CALLED)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """So is whatever is done with a weight."""
        if node.attr == "weight":
            root, path = self._path_of(node.value)
            what, by_product = _what_is_done(node, self._parents)
            if path and what is not None:
                self._note(path, anywhere=root != "self", what=what, by_product=by_product)
        self.generic_visit(node)

    def _visit_all(self, statements: Sequence[ast.stmt]) -> None:
        """Statements in a row; behind an `if` that returns, the test has failed."""
        before = self._conditions
        for statement in statements:
            self.visit(statement)
            if isinstance(statement, ast.If) and isinstance(statement.body[-1], (ast.Return, ast.Raise)):
                self._conditions += _conditions_of(statement.test, wanted=False)
        self._conditions = before

    def _note(self, path: str, *, anywhere: bool, what: str, by_product: bool = False) -> None:
        self.uses.append(Use(path, anywhere, what, by_product, self._conditions))

    def _path_of(self, node: ast.expr) -> tuple[str, str]:
        """What a chain of attributes begins with, and the rest; a name that stands for a layer is followed."""
        root, path = _path_of(node)
        if root in self._aliases:
            path = f"{self._aliases[root]}.{path}" if path else self._aliases[root]
            root = "self"
        return root, path


def _aliases_in(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Names that stand for a layer, after `proj = self.attn.proj`, with its path."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            root, path = _path_of(node.value)
            if root == "self" and path and not path.endswith("weight"):
                yield node.targets[0].id, path


def _what_is_done(node: ast.Attribute, parents: dict[ast.AST, ast.AST]) -> tuple[str | None, bool]:
    """What becomes of `x.weight`, None if nothing that matters; and whether it is a factor of a product right there."""
    if isinstance(node.ctx, ast.Store):
        return WRITTEN, False
    parent = parents[node]
    if isinstance(parent, ast.Attribute):
        if parent.attr == "data":
            return _what_is_done(parent, parents)
        if parent.attr == "dtype":
            return TYPED, False
        if parent.attr.endswith("_") and not parent.attr.startswith("_"):
            return WRITTEN, False
        if parent.attr in _HARMLESS or parent.attr.startswith("_"):
            return None, False
    if isinstance(parent, ast.AugAssign) and parent.target is node:
        return WRITTEN, False
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.MatMult):
        return BYPASSED, True
    if isinstance(parent, ast.Call) and node in parent.args:
        function = parent.func.attr if isinstance(parent.func, ast.Attribute) else getattr(parent.func, "id", "")
        return (None, False) if function in _ASKING else (BYPASSED, function in _PRODUCTS)
    return BYPASSED, False


def _path_of(node: ast.expr) -> tuple[str, str]:
    """The name that a chain of attributes begins with ("" if it is none), and the rest, after any index."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return (node.id if isinstance(node, ast.Name) else "", ".".join(parts))


def _conditions_of(test: ast.expr, wanted: bool) -> tuple[Condition, ...]:
    """The condition that a branch puts, if attributes of self alone decide it."""
    for node in ast.walk(test):
        is_foreign = isinstance(node, ast.Name) and node.id != "self"
        if is_foreign or isinstance(node, (ast.Call, ast.NamedExpr, ast.Lambda, ast.Await)):
            return ()
    return ((compile(ast.Expression(test), "<a branch of a model>", "eval"), wanted),)


def _outcome(test: CodeType, module: _InMode) -> Any:
    """The outcome of a test, true or false; None if the module has no answer."""
    try:
        return bool(eval(test, {"__builtins__": {}}, {"self": module}))  # noqa: S307  a line of the model's own code
    except Exception:  # noqa: BLE001  whatever a stranger's attribute raises
        return None
