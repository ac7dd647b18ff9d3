"""A training step of a converted model runs on fake tensors: nothing asks one for its value. Oracle: torch raises."""

import pytest
import torch
from models import tiny_gpt2, tiny_llama
from torch._subclasses.fake_tensor import FakeTensorMode

import octoscale
from octoscale.kernels import shapes, table
from octoscale.kernels.table import Choice


@pytest.mark.parametrize("backend", ["native", "portable", "shapes"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("scaling", ["amax", "amax:formats=fnuz", "cscale:-1"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_step_looks_at_no_value(backend, make, scaling, autocast):
    ids = torch.arange(24).view(2, 12)
    with table.instead("cpu", _choice(backend)), FakeTensorMode(allow_non_fake_inputs=True) as fake:
        model = octoscale_model(make, scaling)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(input_ids=fake.from_tensor(ids), labels=fake.from_tensor(ids)).loss
        loss.backward()
        torch.optim.AdamW(model.parameters()).step()
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("scaling", ["amax:row", "weight=amax:block,input=amax:mx"])
def test_so_does_one_with_several_scales_a_tensor_in_a_plan(make, scaling):
    """What a plan measures: each operand that is turned is there as codes once more."""
    with table.instead("cpu", _choice("shapes")), FakeTensorMode() as fake:
        model = octoscale_model(make, scaling)
        ids = fake.from_tensor(torch.arange(24).view(2, 12))
        model(input_ids=ids, labels=ids).loss.backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())


def octoscale_model(make, scaling):
    """A converted model whose tensors are fake."""
    model = make().train()
    octoscale.convert(model, octoscale.parse_scaling(scaling))
    return model


def _choice(name):
    if name == "shapes":
        return Choice(name=name, backend=shapes, reason="a test")
    (row,) = [row for row in table.TABLE if row.name == name]
    if (why := row.why_not("cpu")) is not None:
        pytest.skip(why)
    backend, reason = row.make("cpu")
    return Choice(name=name, backend=backend, reason=reason)


def test_another_backend_serves_only_inside_of_the_block():
    before = table.choose("cpu")
    with table.instead("cpu", _choice("shapes")):
        assert table.choose("cpu").name == "shapes"
    assert table.choose("cpu") is before
