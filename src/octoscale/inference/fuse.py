"""Fast decoding: while text is generated, new tokens pass a decoder layer in one call of the C++ core.

    model = AutoModelForCausalLM.from_pretrained("my-llama-fp8").eval()
    print(fuse(model))                  # 22 of 22 decoder layers fused, and the head
    model.generate(...)                 # transformers' own, with its own cache

A single token reads every weight once and computes next to nothing: what costs time besides are some thirty calls of
Python and torch for each layer. `fuse` gives the decoder, its layers and the head a `forward` that makes one call for
each where it may, and else goes the usual way.

Codes and norms are read where they are; that one is replaced, or a scale changed, is noticed when a sequence begins.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from octoscale.conversion.stacks import decoder_stacks
from octoscale.inference.backbone import FusedBackbone
from octoscale.inference.decoder_layer import FusedLayer, why_not
from octoscale.inference.ends import FusedHead, FusedNorm, why_head_unknown
from octoscale.inference.known_layers import BACKBONES, why_backbone_unknown
from octoscale.kernels import decoder
from octoscale.layers.stored import StoredLinear


@dataclass(frozen=True)
class FusionReport:
    """Which decoder layers decode fast, and why the others do not."""

    fused: list[str]
    left: dict[str, str] = field(default_factory=dict)
    head: bool = False

    def __str__(self) -> str:
        head = ", and the head" if self.head else ""
        counts = f"{len(self.fused)} of {len(self.fused) + len(self.left)} decoder layers fused{head}"
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            by_reason.setdefault(reason, []).append(name)
        said = [f"{names[0]}{_and_more(names)}: {reason}" for reason, names in by_reason.items()]
        return "; ".join([counts, *said])


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def fuse(model: PreTrainedModel) -> FusionReport:
    """Let a model decode fast, as far as it can; the report says how far. Call `unfuse` to undo it."""
    unfuse(model)
    layers = dict(_decoder_layers(model))
    reason = decoder.why_not()
    left = {name: reason or why_not(layer) for name, layer in layers.items()}
    fused = [name for name, why in left.items() if why is None]
    for name in fused:
        layers[name].forward = FusedLayer(name, layers[name])
    if fused and len(fused) == len(layers):
        for module in model.modules():
            if type(module) in BACKBONES and "forward" not in module.__dict__ and why_backbone_unknown(module) is None:
                module.forward = FusedBackbone(module)
                norm: nn.Module = module.norm
                norm.forward = FusedNorm(norm)
    head: Any = model.get_output_embeddings()
    plain = bool(fused) and why_head_unknown(head) is None
    if plain:
        head.forward = FusedHead(head)
    fast_head = plain or (isinstance(head, StoredLinear) and head.fp8.activations == "none")
    return FusionReport(fused, {name: why for name, why in left.items() if why is not None}, fast_head)


def unfuse(model: PreTrainedModel) -> None:
    """Take back what `fuse` did."""
    for module in model.modules():
        if isinstance(module.__dict__.get("forward"), FusedBackbone | FusedLayer | FusedNorm | FusedHead):
            del module.__dict__["forward"]


def _decoder_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """What stands in the lists of the model's layers, whatever its class."""
    for stack in decoder_stacks(model) or []:
        for name, module in model.get_submodule(stack).named_children():
            yield f"{stack}.{name}", module
