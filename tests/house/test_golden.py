"""No change of structure changes a number. Oracle: what an older tree wrote down on the same kind of machine."""

import json

import pytest
from record import golden_file, measure

pytestmark = pytest.mark.slow


def test_the_numbers_are_those_that_were_written_down(tmp_path):
    """Perplexities, losses, tokens, logits, bytes of checkpoints, and figures."""
    path = golden_file()
    if not path.exists():
        pytest.skip(f"nobody has run tests/golden/record.py on a machine like this: there is no {path.name}")
    found, expected = measure(tmp_path), json.loads(path.read_text())["numbers"]
    different = {name: (found.get(name), expected[name]) for name in expected if found.get(name) != expected[name]}
    assert not different
    assert found.keys() == expected.keys()
