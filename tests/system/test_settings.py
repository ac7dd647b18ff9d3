"""A setting is stated once. Oracle: a dataclass as Python makes it."""

from dataclasses import MISSING, dataclass, fields

import pytest
import torch

from octoscale.system.errors import UserError
from octoscale.system.settings import argument, check_seed, check_typed, help_of, setting


def _limit_in_vain(settings):
    return None if settings.task else f"--limit {settings.limit} is for --task"


@dataclass(frozen=True, kw_only=True)
class Made:
    model: str = argument("Which.")
    prompt: str = setting(help="What to go on with.")
    task: str | None = setting(None, "Questions.")
    limit: int = setting(3, "How many.", in_vain=_limit_in_vain)
    mute: int = 0


def test_defaults_are_those_of_a_dataclass():
    assert Made(model="m", prompt="p") == Made(model="m", prompt="p", task=None, limit=3, mute=0)
    assert Made.limit == 3
    assert [field.name for field in fields(Made) if field.default is MISSING] == ["model", "prompt"]
    with pytest.raises(TypeError, match="prompt"):
        Made(model="m")


def test_each_says_what_it_is():
    stated = {field.name: field for field in fields(Made)}
    assert [help_of(stated[name]) for name in ("model", "prompt", "limit")] == [
        "Which.",
        "What to go on with.",
        "How many.",
    ]
    with pytest.raises(ValueError, match="the setting mute has no help"):
        help_of(stated["mute"])


def test_what_was_typed_in_vain_is_refused_and_what_was_not_typed_is_not():
    alone, read = Made(model="m", prompt="p"), Made(model="m", prompt="p", task="t")
    with pytest.raises(UserError, match="--limit 3 is for --task"):
        check_typed(alone, {"limit", "model"})
    check_typed(alone, {"model", "mute"})
    check_typed(read, {"limit"})


@pytest.mark.parametrize("seed", [-(2**63) - 1, -(2**63), -1, 0, 2**64 - 1, 2**64])
def test_a_seed_is_one_that_torch_takes(seed):
    """Oracle: torch."""
    try:
        torch.Generator().manual_seed(seed)
    except (RuntimeError, ValueError, OverflowError):
        with pytest.raises(UserError, match=f"seed {seed}: a whole number of 64 bits"):
            check_seed(seed)
    else:
        check_seed(seed)
