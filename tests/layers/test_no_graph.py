"""What cannot be in a graph says so: each reason, with layer and remedy. Oracle: layers made unfit by hand."""

import tempfile
from collections.abc import Callable

import pytest
import torch
from tensors import normal
from torch import nn

from octoscale.conversion.convert import convert
from octoscale.kernels.ops import quantize
from octoscale.layers.gathered import Gathered
from octoscale.layers.ranks import Ranks
from octoscale.numerics.recipe import parse_scaling
from octoscale.numerics.scaling import Amax
from octoscale.runs.scales import Recorder

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own


def recorded(layer) -> None:
    layer.fp8.runtime.attach(Recorder(tempfile.mkdtemp()))


def in_parts(layer) -> None:
    layer.fp8.ranks = Ranks(amax={"weight": lambda amax: amax}, sum_output=lambda y: y)


def gathered(layer) -> None:
    cast = quantize(layer.weight.detach(), "e4m3fn", Amax())
    layer.weight = nn.Parameter(Gathered(cast.codes, cast.scale_bias, cast.format, torch.float32))


#: The scaling; what makes a layer unfit; what is said of it.
REASONS: dict[str, tuple[str, Callable[[nn.Module], None], str]] = {
    "recorded": ("amax", recorded, "it is being recorded: compile where octoscale.record has ended"),
    "delayed": (
        "delayed:history=4",
        lambda _: None,
        "its scaling is delayed:history=4, which each call adds to: take amax or cscale",
    ),
    "imitated": (
        "amax:accumulate=hopper",
        lambda _: None,
        "its sums imitate hopper: take accumulate=hopper out of the scaling",
    ),
    "in parts": ("amax", in_parts, r"it is one rank's part \(tensor parallel\): compile without fullgraph=True"),
    "gathered": ("amax", gathered, r"its weight comes from other ranks as FP8 codes \(FSDP\): compile without full"),
    "two": ("delayed:history=4,accumulate=ada", recorded, "it is being recorded: .*; its scaling is .*; its sums imit"),
}


def unfit(name: str) -> nn.Module:
    scaling, spoil, _ = REASONS[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4))
    convert(model, parse_scaling(scaling))
    spoil(model[0])
    return model.eval()


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", REASONS)
def test_a_whole_graph_is_refused_with_the_reason_the_layer_and_the_remedy(name):
    model, x = unfit(name), normal(2, 16)
    said = f"octoscale: 0 cannot be in a graph: {REASONS[name][2]}"
    with torch.no_grad(), pytest.raises(torch._dynamo.exc.Unsupported, match=said):
        torch.compile(model, backend="eager", fullgraph=True)(x)
    with torch.no_grad(), pytest.raises(torch._dynamo.exc.Unsupported, match=said):
        torch.export.export(model, (x,), strict=True)
    if name == "gathered":  # whose values torch.export hands over
        with torch.no_grad():
            assert torch.equal(torch.export.export(model, (x,)).module()(x), model(x))
    else:
        with torch.no_grad(), pytest.raises(ValueError, match=said):
            torch.export.export(model, (x,))


@pytest.mark.parametrize("name", REASONS)
def test_else_it_is_eager_mode_between_graphs(name):
    """Oracle: eager mode on a model of its own, bit for bit."""
    x = normal(2, 16)
    with torch.no_grad():
        assert torch.equal(torch.compile(unfit(name), backend="eager")(x), unfit(name)(x))


def test_what_is_fit_has_no_reason_and_what_is_not_has_one():
    """Oracle: `is_stateless`, by which a layer is put into a graph."""
    for name in REASONS:
        first, other, _ = unfit(name)
        assert (first.fp8.is_stateless, other.fp8.is_stateless) == (name == "gathered", REASONS[name][0] == "amax")
        assert (other.fp8.why_no_graph() == "octoscale: 1 cannot be in a graph: ") == other.fp8.is_stateless
