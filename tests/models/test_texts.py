"""Texts and their windows. Oracles: the texts themselves, and one byte a token."""

import pytest
import torch
import transformers
from models import tiny_llama

from octoscale.models.texts import check_window, positions_of, read_text, token_windows


def encode(text):
    return list(text.encode())


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, 64),
        ({"max_position_embeddings": -1}, None),
        ({"max_position_embeddings": 0}, None),
        ({"max_position_embeddings": None}, None),
    ],
)
def test_the_positions_of_a_model(changes, limit):
    model = tiny_llama(max_position_embeddings=64)
    vars(model.config).update(changes)
    assert positions_of(model) == limit
    check_window(10**6 if limit is None else limit, model)


def test_roberta_counts_from_behind_its_pad():
    """Oracle: the model itself, which fails at the first position beyond."""
    sizes = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.RobertaConfig(**sizes, intermediate_size=32, max_position_embeddings=20, pad_token_id=1)
    model = transformers.RobertaForSequenceClassification(config).eval()
    limit = positions_of(model)
    assert limit == 18
    model(input_ids=torch.full((1, limit), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 5))


def test_windows_are_the_first_tokens_without_overlap():
    windows = token_windows("abcdefghij", encode, window=3, num_tokens=8)
    assert windows.tolist() == [[97, 98, 99], [100, 101, 102]]


def test_windows_of_a_whole_text():
    assert token_windows("abcdef", encode, window=2).shape == (3, 2)


@pytest.mark.parametrize(
    ("text", "window", "num_tokens", "message"),
    [
        ("abc", 4, None, "3 tokens, which do not fill a window of 4"),
        ("abcdef", 4, 3, "3 tokens do not fill a window of 4: raise --tokens"),
        ("abcdef", 1, None, "at least 2 tokens"),
        ("", 2, None, "0 tokens"),
    ],
)
def test_a_text_that_fills_no_window_is_an_error(text, window, num_tokens, message):
    with pytest.raises(ValueError, match=message):
        token_windows(text, encode, window=window, num_tokens=num_tokens)


def test_pydoc_is_the_sorted_topics_of_python():
    from pydoc_data.topics import topics

    text = read_text("pydoc")
    first, last = min(topics), max(topics)
    assert text.startswith(topics[first] + "\n\n")
    assert text.endswith(topics[last])
    assert len(text) == sum(map(len, topics.values())) + 2 * (len(topics) - 1)


def test_missing_and_binary_texts_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        read_text(str(tmp_path / "nowhere.txt"))
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"ab\xff")
    with pytest.raises(ValueError, match=r"not UTF-8 text: .* at byte 2"):
        read_text(str(binary))


@pytest.mark.parametrize(("source", "said"), [("", "the text has 2"), ("a.txt", "the text a.txt has 2")])
def test_a_text_that_fills_no_window_is_named(source, said):
    with pytest.raises(ValueError, match=f"^{said} tokens, which do not fill a window of 3"):
        token_windows("ab", lambda text: [ord(c) for c in text], window=3, source=source)
