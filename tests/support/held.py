"""A model for inference, in one process or in parts on several ranks: what the ranks run, and what tests compare."""

import tempfile

import torch
import torch.distributed as dist
from many import batches

import octoscale
from octoscale.checkpoints import part_reader
from octoscale.checkpoints.config import OctoscaleConfig
from octoscale.conversion.record import fp8_layers
from octoscale.inference.generate import Sampling, Writer
from octoscale.layers.stored import StoredLinear
from octoscale.models import loading
from octoscale.system.errors import UserError
from octoscale.validation.scalings import validate


def group():
    """All ranks; None in one process."""
    return dist.group.WORLD if dist.is_initialized() else None


def windows():
    """Ids [window, length]."""
    return batches(1, 4)[0].flatten(0, 1)


def measured(spec, scalings, dtype=torch.bfloat16):
    """Scaling -> perplexity, and the failure if there is one."""
    model = loading.load(spec, dtype, ranks=group()).model
    return {score.scaling: (score.perplexity, score.failure) for score in validate(model, scalings, windows=windows())}


def codes(spec, scaling, activations="dynamic"):
    """Codes and scale_bias of each FP8 weight, as far as it is here: of a checkpoint, converted, or cast on loading."""
    fp8 = None
    if scaling.startswith("loading "):
        fp8 = OctoscaleConfig(scaling.removeprefix("loading "), activations=activations)
    model = loading.load(spec, fp8=fp8, ranks=group()).model
    if not any(isinstance(module, StoredLinear) for module in model.modules()):
        octoscale.convert(model, octoscale.parse_scaling(scaling))
        with torch.no_grad():
            model(input_ids=windows()[:1])
    found = {}
    for layer in fp8_layers(model):
        stored = isinstance(layer, StoredLinear)
        cast = layer.quantized_weight() if stored else layer.fp8.runtime.weight[1]
        found[layer.fp8.name.module] = (cast.codes.view(torch.uint8).clone(), int(cast.scale_bias))
    return found


def memory(spec, fp8=False):
    """Bytes of parameters; of the memory behind each that is of columns, and its own; of what was read."""
    seen, read = [], part_reader.read

    def count(stored, cut):
        part = read(stored, cut)
        seen.append(part.nbytes)
        return part

    part_reader.read = count
    try:
        config = OctoscaleConfig("amax") if fp8 else None
        model = loading.load(spec, fp8=config, ranks=group()).model
    finally:
        part_reader.read = read
    return {
        "parameters": sum(parameter.nbytes for parameter in model.parameters()),
        "copies of columns": [
            (parameter.untyped_storage().nbytes(), parameter.nbytes)
            for name, parameter in model.named_parameters()
            if name.endswith(("o_proj.weight", "down_proj.weight"))
        ],
        "read": sum(seen),
    }


def written(spec, scaling=None, activations=None, max_new_tokens=24, temperature=0.0):
    """What a model writes, what it says of itself, and what was emitted."""
    writer = Writer(spec, scaling, activations, ranks=group(), huge_pages=False)
    pieces = []
    new = writer.write(
        writer.encode("Once upon"), Sampling(max_new_tokens=max_new_tokens, temperature=temperature), pieces.append
    )
    return new.ids, writer.describe, "".join(pieces)


def refused(spec, fp8=False):
    """What loading says that it cannot."""
    try:
        loading.load(spec, ranks=group(), fp8=OctoscaleConfig("amax") if fp8 else None)
    except UserError as error:
        return str(error)
    return None


def measured_with_infinity(spec, scaling, where):
    """The failure where a part of an input or weight, on the last rank only, is not finite."""
    model = loading.load(spec, torch.float32, ranks=group()).model
    layer = model.get_submodule("model.layers.1.mlp.down_proj")
    last = not dist.is_initialized() or dist.get_rank() == dist.get_world_size() - 1
    if last and where == "weight":
        with torch.no_grad():
            layer.weight[0, -1] = torch.inf
    if last and where == "input":
        layer.register_forward_pre_hook(lambda _, args: (args[0].index_fill(-1, torch.tensor(0), torch.inf),))
    (score, *others) = validate(model, [scaling, "fp32"], windows=windows())
    return score.failure, len(others)


def recorded(spec):
    """Of the weights of a checkpoint: module -> scale_bias, amax and number of values of what a record says."""
    with tempfile.TemporaryDirectory() as folder:
        model = loading.load(spec, ranks=group()).model
        with torch.no_grad(), octoscale.record(model, folder):
            model(input_ids=windows()[:1])
        rows = octoscale.read_scales(folder).filter(role="weight")
    return {module: seen for module, *seen in rows.select("module", "scale_bias", "amax", "numel").rows()}
