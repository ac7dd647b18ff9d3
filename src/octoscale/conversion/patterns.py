"""Names of modules by patterns: a module's name, or a part of it from a dot on, with shell wildcards.

    down_proj, layers.0.*, *.self_attn.?_proj

A pattern that matches nothing is an error: it is a stale name, or a slip, and what it was meant for would be passed
over. A layer that an adapter wraps, `q_proj.base_layer`, counts as `q_proj`.
"""

import difflib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from octoscale.conversion.kinds import WRAPPED
from octoscale.system.errors import UserError


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern means the module of this name."""
    names = {name, name.removesuffix(WRAPPED)}
    return any(fnmatchcase(each, pattern) or fnmatchcase(each, f"*.{pattern}") for each in names)


def check_patterns(what: str, patterns: Sequence[str], layers: str, names: Sequence[str]) -> None:
    """UserError, naming near names, for a pattern that matches none of these.

    what: the patterns are called; layers: what the names are of.
    """
    for pattern in patterns:
        if not any(matches(pattern, name) for name in names):
            near = difflib.get_close_matches(pattern, sorted({*names, *_leaves(names)}), n=4, cutoff=0.4)
            hint = ", ".join(near or sorted(set(_leaves(names)))[:8]) or "there is none"
            raise UserError(f"{what} {pattern!r} matches no {layers}; near names: {hint}")


def _leaves(names: Sequence[str]) -> Iterator[str]:
    return (name.rsplit(".", 1)[-1] for name in names)
