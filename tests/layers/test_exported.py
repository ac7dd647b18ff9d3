"""torch.export of FP8 layers and models: run, saved, loaded, trained. Oracle: eager mode, bit for bit."""

import copy
import subprocess
import sys

import pytest
import torch
from graphs import BACKENDS, ONE_LAYER, assert_same, outputs_and_gradients, served_by
from models import tokens
from stored_layers import AllKinds, as_stored
from tensors import DTYPES, normal
from torch import nn
from torch.export import Dim
from torch.export.experimental import _export_forward_backward

from octoscale.conversion.convert import convert
from octoscale.conversion.head import put_head_in_fp8
from octoscale.numerics.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own

SHAPES = {"x": {0: Dim("batch"), 1: Dim("length")}}
#: As torch.export sees a model: tensors in, tensors out.
LENGTHS = {"ids": {0: Dim("batch"), 1: Dim("length", max=30)}}


class Logits(nn.Module):
    """What a language model says of ids."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(input_ids=ids, use_cache=False).logits


def layers() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 24), nn.Linear(24, 8), nn.Linear(8, 2))
    convert(model, Recipe.amax())
    return model


class Layers(nn.Module):
    """Converted layers with the interface of `AllKinds`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layers()

    def forward(self, x):
        return [self.layers(x)]

    def inputs(self, *shape: int) -> torch.Tensor:
        return normal(*shape, 40)


MODELS = {"converted": Layers, "stored": lambda: AllKinds(torch.bfloat16)}


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_an_exported_program_computes_what_eager_mode_does(make, strict, tmp_path):
    """Also for other sizes, after a trip to the disk, and with other weights."""
    model = make().eval()
    with torch.no_grad():
        program = torch.export.export(model, (model.inputs(3, 5),), dynamic_shapes=SHAPES, strict=strict)
        torch.export.save(program, tmp_path / "model.pt2")
        loaded = torch.export.load(tmp_path / "model.pt2").module()
        for shape in ((3, 5), (2, 7), (0, 5), (1, 1)):
            x = model.inputs(*shape)
            assert_same(program.module()(x), model(x))
            assert_same(loaded(x), model(x))
        x, state = model.inputs(3, 5), model.state_dict()
        changed = {name: x * 1.3 if name.endswith("scale") else x.flip(0) for name, x in state.items()}
        before = loaded(x)
        model.load_state_dict(changed)
        loaded.load_state_dict(changed)
        assert_same(loaded(x), model(x))
        assert not any(torch.equal(a, b) for a, b in zip(loaded(x), before, strict=True))


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_gradients_flow_through_an_exported_program(make):
    """Each parameter that has a gradient in eager mode has it there, and after a step of its own another one."""
    model = make().train()
    x = model.inputs(3, 5)
    graph = torch.export.export(copy.deepcopy(model), (x,)).module()  # which shares its parameters
    first = outputs_and_gradients(graph, graph, x)
    assert_same(first, outputs_and_gradients(model, model, x))
    for module in (model, graph):
        torch.optim.SGD(module.parameters(), lr=0.1).step()
    second = outputs_and_gradients(graph, graph, x)
    assert_same(second, outputs_and_gradients(model, model, x))
    assert not torch.equal(first[0], second[0])


def test_a_joint_graph_of_both_passes():
    """torch.export's own, which is experimental. Oracle: eager mode."""

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers()

        def forward(self, x):
            return self.layers(x).square().sum()

    model, x = Loss(), normal(3, 40)
    joint = _export_forward_backward(torch.export.export(model, (x,)))
    signature, nodes = joint.graph_signature, list(joint.graph.nodes)
    names = [node.name for node in nodes if node.op == "placeholder"]
    parameters = signature.inputs_to_parameters
    given = [joint.state_dict[parameters[name]] if name in parameters else x for name in names]
    found = dict(zip([node.name for node in nodes[-1].args[0]], joint.graph_module(*given), strict=True))
    model(x).backward()
    gradients = signature.backward_signature.gradients_to_parameters
    assert len(gradients) == len(list(model.parameters()))
    assert all(torch.equal(found[node], model.get_parameter(name).grad) for node, name in gradients.items())


def test_a_program_is_read_where_nothing_but_the_package_was_imported(tmp_path):
    """In a process of its own: `import octoscale`, before torch or after it."""
    model, x = layers().eval(), normal(3, 40)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    torch.save((x, model(x).detach()), tmp_path / "expected.pt")
    script = f"""
import octoscale, sys
assert "torch" not in sys.modules
import torch
x, y = torch.load({str(tmp_path / "expected.pt")!r})
assert torch.equal(torch.export.load({str(tmp_path / "model.pt2")!r}).module()(x), y)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "dtype"), [*zip(BACKENDS, DTYPES, strict=True)])
@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
@pytest.mark.parametrize("activations", ["converted", "dynamic", "static", "none"])
@pytest.mark.parametrize("make", ONE_LAYER.values(), ids=ONE_LAYER)
def test_whole_models(make, activations, strict, backend, dtype, tmp_path):
    with served_by(backend), torch.no_grad():
        model = make().to(dtype)
        convert(model, Recipe.amax())
        if activations != "converted":
            as_stored(model, activations)
            put_head_in_fp8(model)
        logits = Logits(model)
        program = torch.export.export(logits, (tokens(),), dynamic_shapes=LENGTHS, strict=strict)
        torch.export.save(program, tmp_path / "model.pt2")
        loaded = torch.export.load(tmp_path / "model.pt2").module()
        for ids in (tokens(), tokens(batch=3, length=7)):
            assert torch.equal(program.module()(ids), logits(ids))
            assert torch.equal(loaded(ids), logits(ids))
