"""What to quantize: one place for the words, and the defaults, of the command quantize."""

from collections.abc import Iterable
from dataclasses import dataclass

from octoscale.layers.layouts import ACTIVATIONS, get_layout


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """What to quantize. Texts as on the command line; see `octoscale quantize --help`."""

    model: str
    scaling: str = "amax"
    activations: str = "dynamic"
    calibrate: str = "pydoc"
    tokens: int = 8192
    window: int = 512
    layout: str = "compressed-tensors"
    tie_fused: bool = False
    skip: Iterable[str] = ()

    def __post_init__(self) -> None:
        if self.activations not in ACTIVATIONS:
            raise ValueError(f"unknown activations {self.activations!r}: one of {', '.join(ACTIVATIONS)}")
        get_layout(self.layout).config([], self.activations)
