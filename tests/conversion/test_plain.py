"""Which linear layers compute the plain product. Oracle: torch's own product, in float64 on the values of the codes."""

import pytest
import torch
import transformers as T
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune
from transformers.pytorch_utils import Conv1D

import octoscale
from octoscale import Fp8Linear, Recipe
from octoscale.checkpoints.hf import OctoscaleConfig, quantize_model
from octoscale.conversion.convert import preview
from octoscale.conversion.plain import why_not_plain


class Plain(nn.Linear):
    """The product, spelled otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias


class Renamed(nn.Linear):
    """Only another name, and an attribute that no forward reads."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.note = "from somewhere"


class Transposed(nn.Linear):
    """What Conv1D does, with a weight [in, out]; square, it fits."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Scaled(Plain):
    scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class WithScale(Plain):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class WithBuffer(Plain):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("calls", torch.zeros(()))


class WithParameter(Plain):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.gain = nn.Parameter(torch.ones(()))


class OnlyInEval(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if self.training else 1)


class Clamped(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-1e4, 1e4)


class HalfPrecision(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.half(), self.weight.half()).to(x.dtype)


class WithoutBias(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


class Frozen(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.detach(), self.bias)


class Dropping(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(super().forward(x), 0.1, self.training)


class Flattening(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten(0, -2)


class CallingOtherwise(nn.Linear):
    def __call__(self, x: Tensor) -> Tensor:
        return 2 * super().__call__(x)


class Pair(nn.Linear):
    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return super().forward(x), None


PLAIN = (nn.Linear, Plain, Renamed)
NOT_PLAIN = (
    *(Transposed, Scaled, WithScale, WithBuffer, WithParameter, OnlyInEval, Clamped, HalfPrecision, WithoutBias),
    *(Frozen, Dropping, Flattening, CallingOtherwise, Pair),
)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("cls", PLAIN)
def test_a_subclass_that_computes_the_product_is_plain(cls, device):
    with torch.device(device):
        assert why_not_plain(cls(4, 4)) is None
        assert why_not_plain(cls(6, 2, False).eval()) is None


@pytest.mark.parametrize("cls", NOT_PLAIN)
def test_a_subclass_that_does_anything_else_is_not(cls):
    assert why_not_plain(cls(4, 4)) == f"{cls.__name__} has a forward of its own"


def test_a_trial_draws_no_random_number_and_runs_in_any_mode():
    class Fresh(Plain):
        pass

    class Drawing(Plain):
        def forward(self, x):
            return super().forward(x) + torch.rand(()).mul(0)

    state = torch.random.get_rng_state()
    with torch.inference_mode(), torch.device("meta"):
        assert why_not_plain(Fresh(4, 4)) is None
        assert why_not_plain(Drawing(4, 4)) is None
    assert torch.equal(torch.random.get_rng_state(), state)


def test_hooks_of_a_layer_do_not_run_in_a_trial():
    layer, calls = Plain(4, 4), []
    layer.register_forward_hook(lambda *_: calls.append(1))
    assert why_not_plain(layer) is None
    assert calls == []


def test_other_modules_and_other_states_say_why():
    assert why_not_plain(Conv1D(4, 4)) is None
    assert why_not_plain(nn.Bilinear(4, 4, 4)) == "Bilinear has a forward of its own"
    assert why_not_plain(nn.LazyLinear(4)) == "its weight has no shape yet: call the model once before"
    layer = nn.Linear(4, 4)
    layer.forward = layer.forward
    assert why_not_plain(layer) == "its forward was replaced by another library: convert before that"


PREPARED = {
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "weight_norm by hooks": nn.utils.weight_norm,
}


@pytest.mark.filterwarnings("ignore")  # torch deprecates weight_norm by hooks
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("prepare", PREPARED.values(), ids=PREPARED)
def test_a_weight_that_is_computed_in_each_call_stays(prepare, stored):
    """Oracle: the layer's own output, bit for bit."""
    model = tiny_falcon()
    layer = model.transformer.h[0].mlp.dense_h_to_4h = nn.Linear(32, 128)
    prepare(layer)
    x = torch.randn(3, 32)
    expected = layer(x)
    quantize_model(model, OctoscaleConfig("amax")) if stored else octoscale.convert(model, Recipe.amax())
    assert torch.equal(model.transformer.h[0].mlp.dense_h_to_4h(x), expected)
    assert isinstance(model.transformer.h[0].mlp.dense_4h_to_h, Fp8Linear)


def test_a_layer_without_a_shape_is_in_the_report():
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 4), nn.Linear(4, 4))
    row = preview(model, Recipe.amax()).modules[0]
    assert (row.shape, row.converted, row.reason) == ((), False, why_not_plain(model[0]))


def tiny_falcon() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return T.FalconForCausalLM(T.FalconConfig(vocab_size=96, **sizes)).eval()


def dequantized(codes: Tensor) -> Tensor:
    cast = octoscale.quantize(codes, "e4m3fn", octoscale.Amax())
    return cast.codes.double() * 2.0 ** -int(cast.scale_bias)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_square_subclass_multiplies_as_it_did(bias, stored):
    """Oracle: float64 products of the casts of input and weight, not transposed."""
    model = tiny_falcon()
    cls = type(model.transformer.h[0].self_attention.dense)
    assert cls.__name__ == "FalconLinear"
    layer = model.transformer.h[0].self_attention.dense = cls(32, 32, bias=bias)
    x, values = torch.randn(5, 32), layer.weight.detach().clone()
    exact = dequantized(x) @ dequantized(values).t() + (0 if layer.bias is None else layer.bias.detach())
    quantize_model(model, OctoscaleConfig("amax")) if stored else octoscale.convert(model, Recipe.amax())
    found = model.transformer.h[0].self_attention.dense
    assert isinstance(found, Fp8Linear)
    with torch.no_grad():
        torch.testing.assert_close(found(x).double(), exact, rtol=1e-5, atol=1e-5)
    octoscale.revert(model)
    assert type(model.transformer.h[0].self_attention.dense) is cls


@pytest.mark.parametrize("size", [32, 48])
def test_a_subclass_trains_as_nn_linear_does(size):
    """Oracle: nn.Linear with the same weights, in FP8 too, bit for bit."""
    results = []
    for cls in (nn.Linear, Plain):
        torch.manual_seed(0)
        model = nn.Sequential(cls(32, size), nn.Linear(size, 32))
        octoscale.convert(model, Recipe.amax())
        x = torch.randn(5, 32, requires_grad=True)
        model(x).square().sum().backward()
        results.append([x.grad, model[0].weight.grad, model[0].bias.grad])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
