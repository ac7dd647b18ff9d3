"""One training, in one process or on several ranks: what the ranks run, and what the test compares."""

import torch
from models import SMALL, tiny_gpt2, tiny_llama
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from transformers import PhiConfig, PhiForCausalLM

import octoscale
from octoscale.distributed.groups import share_scales
from octoscale.distributed.shard import shard
from octoscale.distributed.tensor_parallel import split_layers
from octoscale.layers.linear import Fp8Linear
from octoscale.numerics.formats import PRECISIONS

#: Models by what is hard about them: sizes that two ranks do not divide, weights in several places, [in, out].
MODELS = {
    "llama": lambda: tiny_llama(seed=3),
    "gpt2": lambda: tiny_gpt2(seed=3, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
    "uneven": lambda: tiny_llama(
        seed=3, vocab_size=97, hidden_size=30, intermediate_size=63, num_attention_heads=3, num_key_value_heads=3
    ),
    "tied": lambda: tiny_llama(seed=3, tie_word_embeddings=True),
    "few KV heads": lambda: tiny_llama(seed=3, num_key_value_heads=1),
    "phi": lambda: PhiForCausalLM(PhiConfig(**SMALL | {"num_key_value_heads": 4}, qk_layernorm=True, resid_pdrop=0.0)),
    "wide": lambda: tiny_llama(seed=3, hidden_size=64, intermediate_size=256),
    "narrow": lambda: tiny_llama(
        seed=3, hidden_size=4, intermediate_size=3, num_attention_heads=1, num_key_value_heads=1
    ),
}


def batches(steps, each, seed=1):
    """Ids [step, each, batch, length]."""
    return torch.randint(90, (steps, each, 2, 12), generator=torch.Generator().manual_seed(seed))


def prepared(name, scaling, *, checkpointing=False, frozen=(), lora=False, autocast=False, skip=()):
    """A model in training, converted unless the scaling is a precision."""
    model = MODELS[name]()
    if lora:
        import peft

        torch.manual_seed(1)
        target = ["c_attn", "mlp.c_proj"] if name == "gpt2" else ["q_proj", "down_proj"]
        model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=target, init_lora_weights=False))
    for key, parameter in model.named_parameters():
        if any(part in key for part in frozen):
            parameter.requires_grad_(False)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    recipe = octoscale.parse_scaling(scaling, skip=skip)
    if scaling not in PRECISIONS:
        octoscale.convert(model, recipe)
    if autocast:
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    return model.train()


def parallel(model, fsdp, tp, *, world_amax=False):
    """The model on a mesh of fsdp x tp ranks; the number of this one's replica of the data."""
    if fsdp * tp == 1:
        return 0
    mesh = init_device_mesh("cpu", (fsdp, tp), mesh_dim_names=("fsdp", "tp"))
    if tp > 1:
        split_layers(model, mesh["tp"])
    if fsdp > 1:
        shard(model, mesh["fsdp"])
        if world_amax:
            share_scales(model, mesh.get_group("fsdp"))
    return mesh.get_local_rank("fsdp")


def casts(model):
    """The codes and the scale of each weight, as far as they are on this rank."""
    return {
        layer.fp8.name.module: (cast.codes.view(torch.uint8).clone(), int(cast.scale_bias))
        for layer in model.modules()
        if isinstance(layer, Fp8Linear)
        for cast in [layer.fp8.runtime.weight[1]]
    }


def train(name, scaling, fsdp, tp, accumulate, steps, options, world_amax=False):
    """Losses of this rank, and the casts of the weights, of each step."""
    model = prepared(name, scaling, **options)
    replica = parallel(model, fsdp, tp, world_amax=world_amax)
    each = accumulate // fsdp
    optimizer = torch.optim.AdamW(_trained(model), lr=1e-2)
    losses, weights = [], []
    for step in batches(steps, accumulate):
        losses.append(backward(model, step[replica * each : (replica + 1) * each]))
        weights.append(casts(model))
        optimizer.step()
        optimizer.zero_grad()
    return losses, weights


def train_alone(name, scaling, size, accumulate, steps, options):
    """The same in one process, which plays so many ranks one after the other, and takes the mean of their gradients."""
    model = prepared(name, scaling, **options)
    optimizer = torch.optim.AdamW(_trained(model), lr=1e-2)
    losses, weights = [], []
    for step in batches(steps, accumulate):
        of_ranks, gradients = [], []
        for mine in step.chunk(size):
            of_ranks.append(backward(model, mine))
            gradients.append([p.grad for p in _trained(model)])
            optimizer.zero_grad()
        for parameter, *parts in zip(_trained(model), *gradients, strict=True):
            parameter.grad = sum(parts[1:], parts[0]) / size
        weights.append(casts(model))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(of_ranks)
    return losses, weights


def backward(model, micro_batches):
    """Accumulate the gradients of some batches; their mean loss."""
    parts = []
    for number, ids in enumerate(micro_batches, 1):
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(number == len(micro_batches))
        loss = model(input_ids=ids, labels=ids).loss / len(micro_batches)
        loss.backward()
        parts.append(loss.item())
    return sum(parts)


def _trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def bytes_gathered(name, scaling, dtype):
    """How many bytes this rank's all-gathers of one forward pass bring, of all but the root's parameters."""
    import torch.distributed as dist
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    model = MODELS[name]()
    mesh = init_device_mesh("cpu", (2,))
    if scaling is None:
        policy = MixedPrecisionPolicy(param_dtype=dtype)
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
    else:
        octoscale.convert(model, octoscale.parse_scaling(scaling))
        shard(model, mesh)
    moved, gather = [], dist.all_gather_single

    def count(output_tensor, input_tensor, *args, **options):
        moved.append(output_tensor.nbytes)
        return gather(output_tensor, input_tensor, *args, **options)

    dist.all_gather_single = count
    try:
        model(input_ids=batches(1, 1)[0, 0])
    finally:
        dist.all_gather_single = gather
    return sum(moved[1:])  # the root's come first


def disagreeing(what):
    """What this rank is told where the last one says something else."""
    import torch.distributed as dist

    from octoscale.distributed.mesh import agree
    from octoscale.system.errors import UserError

    said = {name: values[dist.get_rank()] for name, values in what.items()}
    try:
        agree(said)
    except UserError as error:
        return str(error)
    return None


def gradients(name, tp, scaling="amax"):
    """Name -> gradient of one batch, whole."""
    from torch.distributed.tensor import DTensor

    from octoscale.distributed.checkpoint import _without_part

    model = prepared(name, scaling)
    parallel(model, 1, tp)
    backward(model, batches(1, 1)[0])
    found = {key: _without_part(parameter.grad) for key, parameter in model.named_parameters()}
    return {key: grad.full_tensor() if isinstance(grad, DTensor) else grad for key, grad in found.items()}


def norms(name, fsdp, tp):
    """The norm of all gradients of one batch, and that of all values together, put together in float64."""
    from torch.distributed.tensor import DTensor

    from octoscale.distributed.checkpoint import _without_part
    from octoscale.distributed.norm import total_norm

    model = prepared(name, "amax")
    replica = parallel(model, fsdp, tp)
    backward(model, batches(1, fsdp)[0, replica : replica + 1])
    whole = [_without_part(p.grad) for p in model.parameters()]
    whole = [grad.full_tensor() if isinstance(grad, DTensor) else grad for grad in whole]
    return float(total_norm([p.grad for p in model.parameters()])), float(
        torch.cat([grad.double().flatten() for grad in whole]).norm()
    )


def called_by_itself():
    """What is said where a layer is called after an optimizer step."""
    from octoscale.system.errors import UserError

    model = prepared("llama", "amax")
    parallel(model, 2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    backward(model, batches(1, 1)[0])
    optimizer.step()
    try:
        model.model.layers[0](torch.zeros(1, 3, 32))
    except UserError as error:
        return str(error)
    return ""


def with_nan(mode):
    """What is said where the last rank's part of one weight holds NaN; in training, the loss."""
    import torch.distributed as dist

    from octoscale.layers.state import NonFiniteError

    model = prepared("llama", "amax")
    parallel(model, 2, 1)
    with torch.no_grad():
        part = model.model.layers[1].mlp.down_proj.weight._local_tensor
        if dist.get_rank() == 1:
            part.rows[0, 0] = torch.nan
    ids = batches(1, 1)[0, 0]
    if mode == "train":
        return str(model(input_ids=ids, labels=ids).loss.item())
    try:
        with torch.no_grad():
            model.eval()(input_ids=ids)
    except NonFiniteError as error:
        return str(error).partition(" or NaN")[0]
    return ""


def scales(name, fsdp, shared=True):
    """Of the first forward pass: role -> module -> scale_bias and amax. One process reads all batches as one."""
    import tempfile

    model = prepared(name, "amax")
    replica = parallel(model, fsdp, 1, world_amax=shared)
    both = batches(1, 2)[0]
    both[1, :, :6] = 95  # other values, other scales
    ids = both.flatten(0, 1) if fsdp == 1 else both[replica]
    with tempfile.TemporaryDirectory() as folder:
        with octoscale.record(model, folder):
            model(input_ids=ids)
        rows = octoscale.read_scales(folder)
    found = {"weight": {}, "input": {}}
    for role, module, *seen in rows.select("role", "module", "scale_bias", "amax").rows():
        found[role][module] = seen
    return found
