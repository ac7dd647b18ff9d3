"""Data sets of the Hugging Face Hub, read by the package datasets; its cache, its tokens, and its local folders.

hf:NAME[:CONFIGURATION[:SPLIT]]      as a text: the rows of its text column, with an empty line between them
"""

from typing import Any

from octoscale.system.errors import UserError

PREFIX = "hf:"


def read_hub_text(source: str) -> str:
    """The text that `hf:NAME[:CONFIGURATION[:SPLIT]]` means; split `train` unless named. ValueError without a text."""
    words = source.removeprefix(PREFIX).split(":")
    if not words[0] or len(words) > 3:
        raise UserError(f"cannot read {source!r}: a data set is hf:NAME[:CONFIGURATION[:SPLIT]]")
    name, configuration, split = [*words, "", ""][:3]
    rows = load_hub_data(name, configuration or None, split or "train")
    texts = [column for column, feature in rows.features.items() if getattr(feature, "dtype", "") == "string"]
    column = "text" if "text" in texts else next(iter(texts), None)
    if column is None or (column != "text" and len(texts) > 1):
        raise UserError(f"{source} has no column named text; its columns of text are {', '.join(texts) or 'none'}")
    return "\n\n".join(text for text in rows[column] if text)


def load_hub_data(repository: str, configuration: str | None, split: str) -> Any:
    """A data set by transformers' sister library. ValueError, naming the remedy, if that or the data set is missing."""
    try:
        import datasets
    except ImportError as error:
        raise UserError("data sets of the hub need the package datasets: pip install octoscale[train]") from error
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(repository, configuration, split=split)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise UserError(f"cannot load the data set {repository}: {type(error).__name__}: {lines[0]}") from error
