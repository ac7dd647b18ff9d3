"""What the tests of the command line share: a small checkpoint and a text."""

import pytest
from checkpoints import save_tiny_llama


@pytest.fixture
def checkpoint(tmp_path):
    return save_tiny_llama(tmp_path / "llama")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. " * 20)
    return path
