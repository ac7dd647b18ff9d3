"""torch.compile takes FP8 layers whole. Oracle: eager mode, bit for bit, in losses and gradients."""

from contextlib import nullcontext

import pytest
import torch
from graphs import BACKENDS, ONE_LAYER, served_by
from models import TINY, tiny_gpt2, tiny_llama, tokens
from torch import nn

import octoscale
from octoscale import Recipe
from octoscale.layers import compiled
from octoscale.runs.scales import read_scales

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own

RECIPES = {
    "amax": Recipe.amax(),
    "amax:margin=3, fnuz": Recipe.amax(formats="fnuz", margin=3),
    "cscale:2": Recipe.cscale(2),
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def loss_and_gradients(model, ids, call, *, autocast: bool = False) -> list[torch.Tensor]:
    """The loss of the next token, and the gradient of every parameter."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = call(input_ids=ids, use_cache=False).logits.float()
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    return [loss, *(parameter.grad.clone() for parameter in model.parameters())]


def assert_same(ours, theirs):
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("recipe", "autocast"), [*((recipe, False) for recipe in RECIPES), ("amax", True)])
@pytest.mark.parametrize("make", TINY.values(), ids=TINY)
def test_a_whole_model_is_one_graph_with_the_bits_of_eager_mode(make, recipe, autocast):
    """Under autocast the loss only: there, the compiler adds gradients in its own order, without FP8 too."""
    model = make().train()
    octoscale.convert(model, RECIPES[recipe])
    torch.manual_seed(0)
    eager = loss_and_gradients(model, tokens(), model, autocast=autocast)
    torch.manual_seed(0)
    graph = torch.compile(model, backend="aot_eager", fullgraph=True)
    compiled = loss_and_gradients(model, tokens(), graph, autocast=autocast)
    assert_same(compiled[: 1 if autocast else None], eager[: 1 if autocast else None])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", ONE_LAYER.values(), ids=ONE_LAYER)
def test_whole_models_on_each_backend(make, backend, dtype):
    """Training and inference. In half precision the loss only: there, AOTAutograd adds gradients in its own order."""
    with served_by(backend):
        model = make().to(dtype).train()
        octoscale.convert(model, Recipe.amax())
        graph = torch.compile(model, backend="aot_eager", fullgraph=True)
        wanted = slice(None if dtype == torch.float32 else 1)
        ours, theirs = (loss_and_gradients(model, tokens(), call)[wanted] for call in (graph, model))
        assert_same(ours, theirs)
        model.eval()
        with torch.no_grad():
            assert torch.equal(graph(tokens(), use_cache=False).logits, model(tokens(), use_cache=False).logits)


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_a_chain_of_layers_has_the_bits_of_eager_mode(autocast):
    results = compared_on_a_chain(autocast=autocast, backend="aot_eager")
    assert results[0][0].dtype == (torch.bfloat16 if autocast else torch.float32)
    assert_same(*results)


def compared_on_a_chain(*, autocast: bool, **options) -> list[list[torch.Tensor]]:
    """Outputs and gradients of three layers with biases, one of them skipped, in eager mode and compiled."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.Linear(24, 8), nn.Linear(8, 2))
    octoscale.convert(model, Recipe.amax())
    x = torch.randn(3, 5, 16, requires_grad=True)
    results = []
    for call in (model, torch.compile(model, fullgraph=True, **options)):
        model.zero_grad()
        x.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = call(x)
        (y * torch.arange(2)).sum().backward()
        results.append([y, x.grad, *(parameter.grad.clone() for parameter in model.parameters())])
    return results


@pytest.fixture
def llama():
    model = tiny_llama().train()
    octoscale.convert(model, Recipe.amax())
    return model


@pytest.mark.slow
def test_inductors_code_has_the_bits_of_eager_mode():
    ours, theirs = compared_on_a_chain(autocast=False)
    products = [tensor.ndim > 1 for tensor in theirs]  # the sums for biases are the compiler's
    assert_same(*([x for x, wanted in zip(xs, products, strict=True) if wanted] for xs in (ours, theirs)))


def test_inference_is_one_graph_too(llama):
    llama.eval()
    with torch.no_grad():
        graph = torch.compile(llama, backend="aot_eager", fullgraph=True)
        assert torch.equal(graph(tokens(), use_cache=False).logits, llama(tokens(), use_cache=False).logits)


def test_an_optimizer_step_is_seen(llama):
    """Oracle: eager mode after the same step; a weight's cast baked into the graph would be the old one."""
    graph = torch.compile(llama, backend="aot_eager", fullgraph=True)
    before = loss_and_gradients(llama, tokens(), graph)
    torch.optim.SGD(llama.parameters(), lr=1.0).step()
    after = loss_and_gradients(llama, tokens(), graph)
    assert_same(after, loss_and_gradients(llama, tokens(), llama))
    assert not torch.equal(before[0], after[0])


def test_another_batch_size_and_a_frozen_base(llama):
    """Oracle: eager mode; only the gains of the norms are trained, so no product for weights is computed."""
    for name, parameter in llama.named_parameters():
        parameter.requires_grad_("norm" in name)
    graph = torch.compile(llama, backend="aot_eager", fullgraph=True, dynamic=True)
    for ids in (tokens(), tokens(batch=3, length=7)):
        results = []
        for call in (graph, llama):
            llama.zero_grad()
            call(input_ids=ids, use_cache=False).logits.float().logsumexp(-1).mean().backward()
            results.append([p.grad.clone() for p in llama.parameters() if p.requires_grad])
        assert_same(*results)


def test_layers_that_take_the_same_input_share_its_cast(llama, monkeypatch):
    """Oracle: by hand: in each of 2 layers 7 weights, 7 gradients, and 4 inputs: of q k v, o, gate up, down."""
    calls = []
    quantize = compiled.ops.quantize

    def counting(x, *rest):
        calls.append(1)
        return quantize(x, *rest)

    monkeypatch.setattr(compiled.ops, "quantize", counting)
    graph = torch.compile(llama, backend="aot_eager", fullgraph=True)
    loss_and_gradients(llama, tokens(), graph)
    assert len(calls) == 2 * (7 + 7 + 4)


def test_activation_checkpointing_in_a_graph(llama):
    eager = loss_and_gradients(llama, tokens(), llama)
    llama.gradient_checkpointing_enable({"use_reentrant": False})
    graph = torch.compile(llama, backend="aot_eager")
    assert_same(loss_and_gradients(llama, tokens(), graph), eager)


@pytest.mark.parametrize("backend", ["portable", "scaled_mm"])
def test_a_chain_of_layers_on_another_backend(backend):
    with served_by(backend):
        assert_same(*compared_on_a_chain(autocast=False, backend="eager"))


@pytest.mark.parametrize("why", ["recorded", "delayed", "finer than a tensor"])
def test_a_layer_with_state_stays_eager_and_says_so(why, tmp_path):
    model = tiny_llama().train()
    recipes = {"delayed": Recipe.delayed(), "finer than a tensor": Recipe.amax(granularity="row")}
    octoscale.convert(model, recipes.get(why, Recipe.amax()))

    def train(**options):
        return loss_and_gradients(model, tokens(), torch.compile(model, backend="aot_eager", **options))

    with octoscale.record(model, tmp_path / "run", every=0) if why == "recorded" else nullcontext():
        assert torch.equal(train()[0], loss_and_gradients(model, tokens(), model)[0])
        torch._dynamo.reset()
        said = r"model\.layers\.0\.self_attn\.q_proj cannot be in a graph: it"
        with pytest.raises(torch._dynamo.exc.Unsupported, match=said):
            train(fullgraph=True)
    if why == "recorded":
        rows = read_scales(tmp_path / "run")
        assert dict(rows.group_by("role").len().iter_rows()) == {"weight": 14, "input": 28, "grad_output": 28}


def test_eager_mode_goes_on_after_compilation():
    model = tiny_gpt2()
    octoscale.convert(model, Recipe.amax())
    before = loss_and_gradients(model, tokens(), model)
    loss_and_gradients(model, tokens(), torch.compile(model, backend="aot_eager", fullgraph=True))
    assert_same(loss_and_gradients(model, tokens(), model), before)


@pytest.mark.parametrize("dynamic", [False, True])
def test_an_output_may_be_written_to_in_place(dynamic):
    """Oracle: eager mode, bit for bit. OLMo clips what q_proj gives, Llama 4 adds to it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 4))
    octoscale.convert(model, Recipe.amax())

    def run(x):
        y = model[0](x).clamp_(-0.5, 0.5)
        y += model[1](y)
        return y.square().sum()

    results = []
    for call in (run, torch.compile(run, backend="aot_eager", fullgraph=True, dynamic=dynamic)):
        model.zero_grad()
        x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
        loss = call(x)
        loss.backward()
        results.append([loss.detach(), x.grad, model[0].weight.grad.clone()])
    assert_same(*results)
