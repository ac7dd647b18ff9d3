"""One call of a model in FP8: did each layer that is FP8 take part?

    convert(model, Recipe.amax())
    layers_not_run(model)                        [] if all ran on a few tokens, a gray picture, or silence
    layers_not_run(model, pixel_values=..., input_ids=...)

A model's code may read a layer's weight instead of calling it, or leave a layer out; then its FP8 is on paper only.
What stands for pictures and sounds does not run on a text, nor an expert that gets no token: such layers are named too.
"""

from typing import Any

import torch
from torch import Tensor, nn

from octoscale.layers.linear import Fp8Linear
from octoscale.system.errors import UserError

_TOKENS, _SAMPLES = 32, 16_000


def layers_not_run(model: nn.Module, **inputs: Any) -> list[str]:
    """The FP8 layers that one forward pass without gradients does not call: on `inputs`, or on what the model takes.

    Without inputs, ValueError for a model of which nothing says what it takes; whatever the model raises.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Fp8Linear)}
    ran: set[str] = set()
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: ran.add(name), always_call=True)
        for name, layer in layers.items()
    ]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(**(inputs or _few_inputs(model)))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return [name for name in layers if name not in ran]


def _few_inputs(model: Any) -> dict[str, Tensor]:
    """A few tokens, a picture, or a second of sound; tokens for the decoder too where there is one."""
    main: str = getattr(model, "main_input_name", "")
    config: Any = getattr(model, "config", None)
    inputs: dict[str, Tensor] = {}
    if main == "pixel_values":
        size = getattr(config, "image_size", 224)
        sides = (size, size) if isinstance(size, int) else tuple(size)
        inputs[main] = torch.zeros(1, getattr(config, "num_channels", 3), *sides)
    elif main == "input_features" and hasattr(config, "max_source_positions"):  # Whisper's family
        inputs[main] = torch.zeros(1, config.num_mel_bins, 2 * config.max_source_positions)
    elif main == "input_values" and hasattr(config, "conv_stride"):  # Wav2Vec2's family
        inputs[main] = torch.zeros(1, _SAMPLES)
    elif main == "input_ids":
        inputs[main] = _tokens(model)
    else:
        raise UserError(f"a {type(model).__name__} takes {main or 'what nothing says'}: give it inputs to run on")
    inputs = {name: x.to(model.dtype) if x.is_floating_point() else x for name, x in inputs.items()}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = _tokens(model)
    return {name: x.to(model.device) for name, x in inputs.items()}


def _tokens(model: Any) -> Tensor:
    """Ids from the start of the vocabulary, as many as the model takes."""
    embeddings = model.get_input_embeddings()
    text = model.config.get_text_config()
    count = min(_TOKENS, getattr(text, "max_position_embeddings", None) or _TOKENS)
    size: int = getattr(embeddings, "num_embeddings", None) or text.vocab_size
    return torch.arange(count)[None] % size
