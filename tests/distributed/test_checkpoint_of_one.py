"""What one process left is taken by an optimizer with other groups. Oracle: the state of each parameter, by hand."""

import torch
from torch import nn

from octoscale.distributed.checkpoint import take_optimizer


def stepped(model, optimizer):
    """After two steps whose gradients tell the parameters apart."""
    for step in range(2):
        for number, parameter in enumerate(model.parameters(), start=1):
            parameter.grad = torch.full_like(parameter, number + 10 * step)
        optimizer.step()
    return optimizer


def test_moments_find_their_parameters_in_other_groups():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3))
    names = dict(model.named_parameters())
    decayed, others = ([p for name, p in names.items() if (name in ("0.weight", "2.weight")) == yes] for yes in (1, 0))
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    before = stepped(model, torch.optim.AdamW(groups, lr=0.25))
    state = before.state_dict()
    del state["state"][len(decayed)]  # one that had no gradient yet
    turned = [decayed[1:], others[::-1], decayed[:1]]
    after = torch.optim.AdamW([{"params": of_one, "weight_decay": 0.5} for of_one in turned], lr=1.0)
    take_optimizer(after, state, [*decayed, *others])
    for parameter in model.parameters():
        if parameter is others[0]:
            assert parameter not in after.state
        else:
            assert after.state[parameter].keys() == before.state[parameter].keys()
            assert all(torch.equal(after.state[parameter][key], x) for key, x in before.state[parameter].items())
    assert [(group["lr"], group["weight_decay"]) for group in after.param_groups] == [(0.25, 0.5)] * 3
