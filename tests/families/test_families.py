"""The sweep: small random models of every family that transformers builds, each through all that octoscale does.

    ./dev test --slow -k families                     all, about ten minutes
    ./dev test --slow -k "families and causal-llama"

A check holds; or octoscale refuses in one line, which stands in outcome.REFUSED; or transformers' own model in high
precision does not do it, which stands in OWN_LIMITS. What is not as it stands there fails, so that a refusal which
comes or goes is noticed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import file_checks
import generation_checks
import layer_checks
import pytest
import training_checks
from outcome import KNOWN, OWN_LIMITS, REFUSED, OwnLimit
from table import FAMILIES, NOT_BUILT, Family

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # transformers' and Trainer's own

LAYERS: dict[str, Callable[[Family], None]] = {
    "convert": layer_checks.check_convert,
    "forward": layer_checks.check_forward,
    "backward": layer_checks.check_backward,
    "revert": layer_checks.check_revert,
    "generate": generation_checks.check_generate,
    "fuse": generation_checks.check_fuse,
}
FILES: dict[str, Callable[[Family, Path], None]] = {
    "load": file_checks.check_load,
    "save": file_checks.check_save,
    "quantize": file_checks.check_quantize,
    "train": training_checks.check_train,
}


def is_made(family: Family, check: str) -> bool:
    """Whether a check is about what the family does."""
    if check == "generate":
        return family.writes
    return family.kind in {"fuse": ("causal",), "train": ("causal", "encoder", "encoder-decoder", "seeing")}.get(
        check, (family.kind,)
    )


def _cases() -> list[Any]:
    cases = []
    for family in FAMILIES:
        for check in (*LAYERS, *FILES):
            if not is_made(family, check):
                continue
            reason = KNOWN.get((str(family), check))
            marks = [] if reason is None else [pytest.mark.xfail(strict=True, reason=reason)]
            cases.append(pytest.param(family, check, marks=marks, id=f"{family}-{check}"))
    return cases


@pytest.mark.parametrize(("family", "check"), _cases())
def test_families(family: Family, check: str, tmp_path: Path) -> None:
    refused, limit = REFUSED.get((str(family), check)), OWN_LIMITS.get((str(family), check))
    try:
        LAYERS[check](family) if check in LAYERS else FILES[check](family, tmp_path)
    except OwnLimit as error:
        expect_listed(limit, f"transformers' own: {error}")
    except (ValueError, OSError) as error:
        expect_listed(refused, str(error))
    else:
        assert refused is None, f"holds by now: take the refusal {refused!r} out of the list"
        assert limit is None, f"transformers' own holds by now: take {limit!r} out of the list"


def expect_listed(known: str | None, line: str) -> None:
    """What was said is one line, and the one that the list has."""
    assert known is not None, f"not listed: {line}"
    assert known in line
    assert "\n" not in line, f"more than one line: {line}"


def test_every_refusal_is_of_a_family() -> None:
    """No line of the lists is about a check that is not made."""
    made = {(str(family), check) for family in FAMILIES for check in (*LAYERS, *FILES) if is_made(family, check)}
    assert {*REFUSED, *OWN_LIMITS, *KNOWN} <= made


def test_there_are_families_enough() -> None:
    """All kinds are there, 60 families and more, and none twice."""
    names = [str(family) for family in FAMILIES]
    assert len(set(names)) == len(names) >= 300
    assert all(reason for reasons in NOT_BUILT.values() for reason in reasons.values())
