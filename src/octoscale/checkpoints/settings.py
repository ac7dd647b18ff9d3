"""What to quantize: one place for the words, and the defaults, of the command quantize."""

from collections.abc import Sequence
from dataclasses import dataclass

from octoscale.conversion.settings import SKIP, FromFile, said_by_recipe
from octoscale.layers.layouts import ACTIVATIONS, get_layout
from octoscale.system.errors import UserError
from octoscale.system.settings import argument, setting


@dataclass(frozen=True, kw_only=True)
class Quantization(FromFile):
    """What to quantize. Texts as on the command line; see `octoscale quantize --help`."""

    model: str = argument("A checkpoint folder of safetensors, or a hub id.")
    scaling: str = setting("amax", "amax, amax:margin=1, cscale:-1.", in_vain=said_by_recipe("--scaling"))
    activations: str = setting("dynamic", "dynamic (scaled by their own amax), static (by one scale a layer), or none.")
    calibrate: str = setting("pydoc", "The text that static scales are taken from, as --text of validate.")
    tokens: int = setting(8192, "Tokens of that text.")
    window: int = setting(512, "Tokens in a window of it.")
    layout: str = setting("compressed-tensors", "compressed-tensors, vllm-fp8 or hf-fp8.")
    skip: Sequence[str] = setting((), SKIP, in_vain=said_by_recipe("--skip"))
    tie_fused: bool = setting(False, "One scale for q, k, v and one for gate, up: vLLM fuses them.")

    def __post_init__(self) -> None:
        self.take_recipe("scaling")
        if self.activations not in ACTIVATIONS:
            raise UserError(f"unknown activations {self.activations!r}: one of {', '.join(ACTIVATIONS)}")
        get_layout(self.layout).config([], self.activations)
