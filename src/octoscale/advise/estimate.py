"""What FP8 costs at each linear layer, estimated for all of them by one backward pass of the model as it is.

With g the gradient of the loss at a layer's output, and e the error that FP8 would make there, for one token

    first order     g . e             what this one text would lose, or gain, by it: for unbiased errors, chance
    second order    (g . e)**2 / 2    what is lost by it on average: the Gauss-Newton term

The second order ranks layers, by the Fisher matrix for the curvature: its loss is that of tokens which are drawn from
the model's own predictions, not of those that the text goes on with. Then the sum over tokens is an estimate of the
expected cost (cost.py) without a factor in between. The text's own tokens (the empirical Fisher matrix) overrate what
surprises the model: docs/LOG.md has both beside measured costs.

e is the error by quantizing the input x [T, K] alone, the weight w [N, K] alone, or both:

    y = x w^T,   e = dx w^T + x dw^T + dx dw^T        g . e = (g w) . dx + (g dw) . x + (g dw) . dx

so a layer takes two products, and only numbers stay. One window is in memory, and of it one decoder layer: backward
computes each layer's inside again (torch's checkpoint). The same pass looks at what the casts do: signal to noise,
saturated and flushed shares, and the scale that each tensor asks for.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from octoscale.conversion.convert import ModuleReport
from octoscale.conversion.stacks import decoder_stacks
from octoscale.kernels import ops
from octoscale.kernels.ops import Quantized
from octoscale.layers.bf16_gemm import bf16_through_float32
from octoscale.layers.origin import is_conv1d
from octoscale.layers.state import nonfinite_error
from octoscale.numerics.formats import Role, get_format
from octoscale.numerics.granularity import along
from octoscale.numerics.recipe import Recipe
from octoscale.numerics.scaling import amax_to_scale_bias
from octoscale.validation.perplexity import window_loss

#: What is quantized, in the order of the terms.
PARTS = ("input", "weight", "both")


@dataclass(kw_only=True)
class CastSums:
    """What the casts of one tensor did, summed over windows.

    noise and signal: sums of squares. scale_biases: of each cast the lowest and the highest.
    """

    signal: float = 0.0
    noise: float = 0.0
    numel: int = 0
    saturated: int = 0
    flushed: int = 0
    amax: float = 0.0
    scale_biases: list[int] = field(default_factory=list)

    def add(self, x: Tensor, error: Tensor, cast: Quantized) -> None:
        """Note one cast; x and error in float32."""
        seen = cast.observed
        assert seen is not None
        assert seen.saturated is not None
        assert seen.flushed is not None
        self.signal += float(x.double().square().sum())
        self.noise += float(error.double().square().sum())
        self.numel += x.numel()
        self.saturated += int(seen.saturated)
        self.flushed += int(seen.flushed)
        self.amax = max(self.amax, float(seen.amax))
        if cast.scale_bias.numel():  # of no rows there are none
            self.scale_biases += map(int, cast.scale_bias.aminmax())

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise; infinite without noise."""
        return 10 * math.log10(self.signal / self.noise) if self.noise and self.signal else math.inf


@dataclass(kw_only=True)
class LayerEstimate:
    """What is estimated of one layer, in nats a token, and what its casts did.

    first, second: by what is quantized (PARTS). casts: by role. wanted: the scale_bias that FP8-AMAX would choose for
    the largest magnitude seen, whatever the recipe's rule.
    """

    row: ModuleReport
    recipe: Recipe
    num_tokens: int = 0
    first: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    second: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    casts: dict[Role, CastSums] = field(default_factory=lambda: {"weight": CastSums(), "input": CastSums()})

    @property
    def module(self) -> str:
        """The layer's name."""
        return self.row.module

    @property
    def cost(self) -> float:
        """The estimate that ranks: of the second order, in nats a token, with both operands quantized."""
        return self.second["both"] / max(1, self.num_tokens)

    def wanted(self, role: Role) -> int:
        """The scale_bias that FP8-AMAX would give to this tensor."""
        fmt = get_format(self.recipe.operand(role).format)
        return int(amax_to_scale_bias(self.casts[role].amax, fmt))

    def add(self, x_TK: Tensor, w_NK: Tensor, g_TN: Tensor) -> None:
        """Note one call of the layer: its input, weight, and the gradient at its output, in float32."""
        x, dx = self._cast(x_TK, "input")
        w, dw = self._cast(w_NK, "weight")
        by_input, g_dw = ((g_TN @ w) * dx).sum(1), g_TN @ dw
        by_weight = (g_dw * x).sum(1)
        terms = (by_input, by_weight, by_input + by_weight + (g_dw * dx).sum(1))
        for part, term in zip(PARTS, terms, strict=True):
            self.first[part] += float(term.double().sum())
            self.second[part] += float(term.double().square().sum()) / 2

    def _cast(self, x: Tensor, role: Role) -> tuple[Tensor, Tensor]:
        """A tensor and the error of its cast, in float32."""
        operand = self.recipe.operand(role)
        rule = operand.rule
        cast = ops.quantize(x, operand.format, rule, counts=True, granularity=along(rule.granularity, role))
        assert cast.observed is not None
        if not math.isfinite(float(cast.observed.amax)):
            raise nonfinite_error(self.module, role)
        exact = x.float()
        error = cast.dequantize(torch.float32) - exact
        self.casts[role].add(exact, error, cast)
        return exact, error


def estimate_costs(
    model: nn.Module,
    windows: Tensor,
    recipe: Recipe,
    rows: Sequence[ModuleReport],
    *,
    drawn: bool = True,
) -> list[LayerEstimate]:
    """What the recipe would cost at each of these layers, in their order; windows int64 [W, T].

    rows: of `preview`, the layers to look at. drawn: the losses are those of tokens drawn from the model's predictions,
    the same in each run; else the text's own. The model is left as it was. NonFiniteError, naming the layer, for
    infinity or NaN in an input or a weight.
    """
    estimates = [LayerEstimate(row=row, recipe=recipe) for row in rows]
    num_tokens, generator = 0, torch.Generator().manual_seed(0)
    with ExitStack() as stack:
        stack.enter_context(bf16_through_float32(model))
        for prepared in (_watched(model, estimates), _gradients_of_activations(model), _one_layer_at_a_time(model)):
            stack.enter_context(prepared)
        stack.enter_context(torch.enable_grad())
        for window in windows:
            losses = _drawn_loss(model, window, generator) if drawn else window_loss(model, window)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            num_tokens += losses.numel()
    for estimate in estimates:
        estimate.num_tokens = num_tokens
    return estimates


def _drawn_loss(model: Any, window: Tensor, generator: torch.Generator) -> Tensor:
    """The negative log likelihood of a token drawn in the place of each but the first: float32 [T - 1]."""
    window = window.to(next(model.parameters()).device)
    logits = model(input_ids=window[None], use_cache=False).logits[0, :-1].float()
    tokens = torch.multinomial(logits.detach().softmax(-1).cpu(), 1, generator=generator)[:, 0]
    return functional.cross_entropy(logits, tokens.to(logits.device), reduction="none")


@contextmanager
def _watched(model: nn.Module, estimates: Sequence[LayerEstimate]) -> Iterator[None]:
    """While the block runs, each layer's backward is noted."""

    def note(estimate: LayerEstimate, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if output.requires_grad:  # not in the forward that a checkpoint will compute again
            output.register_hook(partial(_add, estimate, module, args[0].detach()))  # type: ignore[no-untyped-call]

    with ExitStack() as stack:
        for estimate in estimates:
            module = model.get_submodule(estimate.module)
            stack.callback(module.register_forward_hook(partial(note, estimate)).remove)
        yield


@torch.no_grad()
def _add(estimate: LayerEstimate, module: nn.Module, x: Tensor, gradient: Tensor) -> None:
    weight: Any = module.weight
    w_NK = weight.t() if is_conv1d(module) else weight
    g_TN = gradient.reshape(-1, gradient.shape[-1]).float()
    estimate.add(x.reshape(-1, x.shape[-1]), w_NK.detach(), g_TN)


@contextmanager
def _gradients_of_activations(model: Any) -> Iterator[None]:
    """While the block runs, gradients flow to the embedded tokens, and to no parameter."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hook = model.get_input_embeddings().register_forward_hook(lambda _, __, output: output.requires_grad_())
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        hook.remove()
        for parameter in wanted:
            parameter.requires_grad_(True)


@contextmanager
def _one_layer_at_a_time(model: nn.Module) -> Iterator[None]:
    """While the block runs, what happens inside of a decoder layer is kept for its own backward alone."""
    stacks = [model.get_submodule(name) for name in decoder_stacks(model) or ()]
    blocks = [block for stack in stacks for block in stack.children() if "forward" not in block.__dict__]
    for block in blocks:
        block.forward = partial(_recomputed, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.__dict__["forward"]


def _recomputed(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The layer, computed again in backward; as it is where a gradient would come in by another way than `args`."""
    reaches = any(isinstance(x, Tensor) and x.requires_grad for x in args)
    if not reaches or any(isinstance(x, Tensor) and x.requires_grad for x in options.values()):
        return forward(*args, **options)
    inner = partial(forward, **options)
    return checkpoint(inner, *args, use_reentrant=True, preserve_rng_state=False)
