"""StoredLinear in a graph of torch.compile. Oracle: eager mode, bit for bit, in outputs and gradients."""

import copy

import pytest
import torch
from graphs import BACKENDS, assert_same, outputs_and_gradients, served_by
from stored_layers import KINDS, AllKinds, stored
from tensors import normal

from octoscale.layers.compiled_stored import weight_only
from octoscale.layers.factor import split_in_graph, split_on_device, split_scale
from octoscale.layers.stored import scale_parameter

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_compiled_as_eager(dtype, autocast=None, **options):
    model = AllKinds(dtype)
    x = model.inputs(3, 5)
    graph = torch.compile(model, fullgraph=True, **options)
    assert_same(outputs_and_gradients(model, graph, x, autocast), outputs_and_gradients(model, model, x, autocast))
    with torch.no_grad():
        assert_same(graph(x), model(x))


@pytest.mark.parametrize(
    ("backend", "dtype"), [("native", torch.bfloat16), ("scaled_mm", torch.float32), ("portable", torch.float16)]
)
def test_all_kinds_are_one_graph_with_the_bits_of_eager_mode(backend, dtype):
    with served_by(backend):
        assert_compiled_as_eager(dtype, backend="aot_eager")


#: The dtype of the layers, and that of autocast. torch itself cannot join bfloat16 tensors under that of float16.
PRECISIONS = [
    (torch.float32, None),
    (torch.bfloat16, None),
    (torch.float16, None),
    (torch.float32, torch.bfloat16),
    (torch.float32, torch.float16),
]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "autocast"), PRECISIONS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_all_kinds_in_each_precision(backend, dtype, autocast):
    with served_by(backend):
        assert_compiled_as_eager(dtype, autocast, backend="aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_inductors_code_gives_the_same(dtype):
    """Oracle: eager mode, bit for bit; the sums for biases are the compiler's, within their rounding."""
    model = AllKinds(dtype)
    x = model.inputs(3, 5)
    graph = torch.compile(model, fullgraph=True)
    ours, theirs = (outputs_and_gradients(model, call, x) for call in (graph, model))
    products = [y.ndim > 1 for y in theirs]
    assert_same(*([y for y, wanted in zip(ys, products, strict=True) if wanted] for ys in (ours, theirs)))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_no_scale_and_no_weight_is_baked_in():
    """Oracle: eager mode after the same change; the outputs do change, and nothing is compiled again."""
    model, graphs = AllKinds(torch.bfloat16, KINDS[3:6] + KINDS[7:]), []
    x = model.inputs(3)

    def compiler(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, fullgraph=True, backend=compiler)
    other = copy.deepcopy(model)
    changes = [
        lambda: [layer.weight_scale.data.mul_(1.1) for layer in other.layers],
        lambda: [getattr(layer, "input_scale", layer.weight_scale).data.mul_(0.55) for layer in other.layers],
        lambda: [layer.weight.data.copy_(layer.weight.data.flip(0)) for layer in other.layers],
        lambda: [layer.bias.data.add_(1) for layer in other.layers if layer.bias is not None],
        lambda: [
            layer.weight_scale.data.copy_(2.0 ** torch.ceil(torch.log2(layer.weight_scale))) for layer in other.layers
        ],
    ]
    with torch.no_grad():
        before = compiled(x)
        for change in changes:
            change()
            model.load_state_dict(other.state_dict())
            now = compiled(x)
            assert_same(now, model(x))
            assert not any(torch.equal(a, b) for a, b in zip(now, before, strict=True) if change is not changes[3])
            before = now
        for layer in model.layers:
            layer.weight_scale = scale_parameter(0.7, layer.fp8.layout)  # another parameter
        assert_same(compiled(x), model(x))
    assert len(graphs) == 1


def test_eager_mode_notices_a_new_scale_of_inputs_too():
    """Oracle: a layer that had this scale from the start."""
    layer, x = stored("static", 1.0, 1.0), normal(3, 40)
    before = layer(x)
    layer.input_scale.data.copy_(torch.tensor([2.0**-7 * 1.7]))
    layer.input_scale.add_(0)  # what a copy by torch would have left as a trace
    assert torch.equal(layer(x), stored("static", 1.0, 1.7)(x))
    assert not torch.equal(layer(x), before)


def test_any_batch_and_length_is_one_graph():
    """Oracle: eager mode. torch itself makes a graph of its own of sizes 0 and 1."""
    model, graphs = AllKinds(torch.float32, KINDS[5:7]), []

    def compiler(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=compiler)
    for shape in ((2, 3), (3, 2), (5, 7), (7, 4)):
        assert_same(compiled(model.inputs(*shape)), model(model.inputs(*shape)))
    assert len(graphs) == 1
    for shape in ((0, 3), (2, 0), (1, 1)):
        assert_same(compiled(model.inputs(*shape)), model(model.inputs(*shape)))


def test_infinity_and_nan_become_nan_where_eager_mode_raises():
    model = AllKinds(torch.float32, KINDS[:6])
    x = model.inputs(3)
    x[1, ::40], x[2, 1::40] = float("inf"), float("nan")
    with torch.no_grad():
        ys = torch.compile(model, fullgraph=True, backend="eager")(x)
    assert all(y[1:].isnan().all() for y in ys)


SCALES = [1.0, 0.5, 3.0, 0.0123, 2.0**-100, 1.999, 2.0**126, 2.0**-126]


@pytest.mark.parametrize("value", SCALES)
def test_a_scale_is_split_on_a_device_as_on_a_cpu(value):
    """Oracle: split_scale."""
    scale = torch.tensor([value])
    for bias, factor in (split_on_device(scale), split_in_graph(scale)):
        assert (bias.dtype, bias.shape, int(bias), float(factor)) == (torch.int32, (), *split_scale(scale, "s"))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e-45, 2.0**127])
def test_what_is_no_scale_is_an_error_or_nan(value):
    scale = torch.tensor([value])
    with pytest.raises(ValueError, match=r"a scale in a graph .call the model without torch\.compile: it names the"):
        split_in_graph(scale)
    assert split_on_device(scale)[1].isnan()


def test_a_device_multiplies_with_each_factor(monkeypatch):
    """Nobody looks at a number there. Oracle: eager mode on this CPU, where factors of 1 are left out."""
    monkeypatch.setattr("octoscale.layers.compiled_stored.split_in_graph", split_on_device)
    with served_by("portable"):
        model = AllKinds(torch.float32)
        x = model.inputs(3, 5)
        expected = outputs_and_gradients(model, model, x)
        found = outputs_and_gradients(model, torch.compile(model, fullgraph=True, backend="eager"), x)
        assert_same(found, expected)
        wide, layer = normal(3, 40).bfloat16(), stored("none", 1.3, 1.0, dtype=torch.bfloat16)
        with torch.no_grad():
            y = weight_only(wide, layer.weight, layer.weight_scale, layer.bias, "e4m3fn amax", False, torch.bfloat16)
            torch.testing.assert_close(y, layer(wide), rtol=2**-7, atol=2**-7)
