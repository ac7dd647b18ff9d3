"""What `octoscale plan` is about, done with real tensors on real ranks, and measured by other means than the plan's."""

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

import octoscale
from octoscale.distributed.mesh import DIMENSIONS, Parallel
from octoscale.distributed.plan import Work
from octoscale.layers.linear import Fp8Linear
from octoscale.models.simulated import simulated
from octoscale.models.sizes import config_of_size
from octoscale.training.share import put

#: Of a micro-batch; no activation has the shape of a weight.
BATCH, WINDOW = 2, 200


def config(family, num_layers=5):
    """A narrow model with all that makes a family's memory its own, but dropout of attention."""
    found = config_of_size({"gpt": "gpt-111m", "llama": "llama2-7b"}[family])
    found.update({"vocab_size": 640, "hidden_size": 128, "num_attention_heads": 4, "num_hidden_layers": num_layers})
    if family == "gpt":
        found.update({"n_inner": 320, "attn_pdrop": 0.0})
    else:
        found.update({"intermediate_size": 320, "num_key_value_heads": 2, "head_dim": 32})
    return found


def prepare(scaling, amax_group="replica"):
    """What a training does with a model."""

    def on_mesh(model, mesh):
        if scaling != "bf16":
            octoscale.convert(model, octoscale.parse_scaling(scaling))
        if mesh is not None:
            put(model, mesh, amax_group)

    return on_mesh


def work(family, scaling, words, micro_batches=1, num_layers=5, amax_group="replica", **options):
    """The same, to be planned."""
    return Work(
        make=lambda depth: simulated(config(family), depth, torch.float32),
        prepare=prepare(scaling, amax_group),
        num_layers=num_layers,
        vocabulary=640,
        parallel=Parallel(**words),
        batch=BATCH,
        window=WINDOW,
        micro_batches=micro_batches,
        autocast=torch.bfloat16,
        **options,
    )


def measured(family, scaling, words, micro_batches):
    """Bytes of this rank in a second step, by row of the plan, and the peak that torch's profiler saw."""
    sizes = tuple(getattr(Parallel(**words), name) for name in DIMENSIONS)
    model = AutoModelForCausalLM.from_config(config(family), dtype=torch.float32)
    shapes = {tuple(sorted(p.shape)) for p in model.parameters() if p.ndim > 1}
    prepare(scaling)(model.train(), init_device_mesh("cpu", sizes, mesh_dim_names=DIMENSIONS))
    if sizes[-1] > 1:
        shapes |= {tuple(sorted(_plain(p).shape)) for p in model.parameters() if p.ndim > 1}
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    _step(model, optimizer, shapes, micro_batches)
    states = [*model.parameters(), *_states(optimizer), *_codes(model)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        found = _step(model, optimizer, shapes, micro_batches)
    more = {"parameters": _bytes(model.parameters()), "optimizer": _bytes(_states(optimizer))}
    return found | more | {"peak": _bytes(states) + _peak_of(profile)}


def _step(model, optimizer, shapes, micro_batches):
    found = {"activations": 0, "casts": 0, "gradients": 0}
    for number in range(micro_batches):
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(number == micro_batches - 1)
        activations, copies = _micro_batch(model, shapes)
        now = {"activations": activations, "casts": copies + _bytes(_codes(model))}
        now["gradients"] = _bytes(_gradients(model))
        found = {name: max(size, found[name]) for name, size in now.items()}
    optimizer.step()
    optimizer.zero_grad()
    return found


def _micro_batch(model, shapes):
    saved = {}

    def keep(x):
        plain = _plain(x)
        saved[plain.untyped_storage()._cdata] = plain
        return x

    ids = torch.randint(600, (BATCH, WINDOW))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        with torch.autocast("cpu", torch.bfloat16):
            out = model(input_ids=ids, labels=ids, use_cache=False)
        out.logits.float()
    loss = out.loss
    del out
    of_weights = {key: x for key, x in saved.items() if tuple(sorted(x.shape)) in shapes}
    copies = [x for x in of_weights.values() if x.dtype == torch.bfloat16]
    activations = [x for key, x in saved.items() if key not in of_weights and x.data_ptr() != ids.data_ptr()]
    sizes = _bytes(activations), _bytes(copies)
    saved.clear()
    del of_weights, copies, activations
    loss.backward()
    return sizes


def _gradients(model):
    found = [p.grad for p in model.parameters() if p.grad is not None]
    for module in model.modules():
        if isinstance(module, FSDPModule):
            group = module._get_fsdp_state()._fsdp_param_group
            for parameter in [] if group is None else group.fsdp_params:
                whole = getattr(parameter, "_unsharded_param", None)
                found += [] if whole is None or whole.grad is None else [whole.grad]
    return found


def _codes(model):
    layers = [module for module in model.modules() if isinstance(module, Fp8Linear)]
    return [layer.fp8.runtime.weight[1].codes for layer in layers]


def _states(optimizer):
    return [x for state in optimizer.state.values() for x in state.values()]


def _bytes(tensors):
    """Of different memory, as much as is there."""
    memory = {_plain(x).untyped_storage()._cdata: _plain(x).untyped_storage() for x in tensors}
    return sum(storage.nbytes() for storage in memory.values())


def _plain(x):
    x = x._local_tensor if isinstance(x, DTensor) else x
    x = getattr(x, "rows", x)
    return x.cast.codes if hasattr(x, "cast") else x


def _peak_of(profile):
    """The highest sum of what was allocated and freed."""
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak
