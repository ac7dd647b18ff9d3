"""Whether FP8 costs more as work grows: a step's time over bfloat16's, for larger layers, and for more ranks.

Layers: one decoder layer of each size, forward and backward of `TOKENS` tokens in one process. Ranks: the same model on
one rank and on two (FSDP2), each with `TOKENS` tokens and one thread, so that each rank has equal work. float32
parameters and bfloat16 autocast, as in `octoscale train`; no optimizer. Both candidates take turns, as in kernels.py.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from octoscale.bench.kernels import Report, machine, turns
from octoscale.conversion.convert import convert
from octoscale.distributed.mesh import Parallel, join, make_mesh
from octoscale.distributed.shard import shard
from octoscale.layers.bf16_gemm import bf16_through_float32
from octoscale.models.sizes import SIZES, config_of_size
from octoscale.numerics.recipe import Recipe
from octoscale.system.heap import keep_freed_memory

#: The sizes whose layers are measured, and the one that is trained on ranks, with so many layers.
LAYERS, RANKED, NUM_LAYERS = ("gpt-111m", "gpt-590m", "gpt-1.3b"), "gpt-111m", 2
RANKS = (1, 2)
TOKENS, ROUNDS = 512, 9
BF16, FP8 = "bf16 autocast", "AMAX"


def growth(rounds: int = ROUNDS) -> Report:
    """Median seconds of a step by size and by ranks, and FP8's over bfloat16's; and how far the turns lie apart."""
    found = {f"a layer of {size}": turns(_steps_of_a_layer(size), rounds) for size in LAYERS}
    found |= {f"{number} rank{'s' * (number > 1)}": _on_ranks(number, rounds) for number in RANKS}
    seconds = {what: {name: statistics.median(of_turns) for name, of_turns in of.items()} for what, of in found.items()}
    return {
        "what": f"a decoder layer of {TOKENS} tokens, forward and backward; {NUM_LAYERS} layers of {RANKED} on ranks",
        "machine": machine(),
        "seconds": seconds,
        "quartiles of the turns' ratios": {what: _quartiles(of) for what, of in found.items()},
        "ratios": {f"time_over_bf16, {what}": of[FP8] / of[BF16] for what, of in seconds.items()},
    }


def _quartiles(of_turns: dict[str, list[float]]) -> dict[str, float]:
    """Of FP8's seconds over bfloat16's, turn by turn."""
    ratios = [ours / theirs for ours, theirs in zip(of_turns[FP8], of_turns[BF16], strict=True)]
    lower, _, upper = statistics.quantiles(ratios, method="inclusive") if len(ratios) > 1 else 3 * ratios
    return {"lower": lower, "upper": upper}


def _steps_of_a_layer(size: str) -> dict[str, Callable[[], object]]:
    return {name: _layer_step(size, recipe) for name, recipe in ((BF16, None), (FP8, Recipe.amax()))}


def _layer_step(size: str, recipe: Recipe | None) -> Callable[[], object]:
    model = _model(size, 1, recipe)
    layer: nn.Module = model.transformer.h[0]
    x = torch.randn(1, TOKENS, SIZES[size].d_model, requires_grad=True)

    def step() -> None:
        with bf16_through_float32(layer):
            with torch.autocast("cpu", torch.bfloat16):
                out = layer(x)
            found: Tensor = out[0] if isinstance(out, tuple) else out
            found.float().square().mean().backward()  # type: ignore[no-untyped-call]
        _forget_gradients(layer)
        x.grad = None

    return step


def _model(size: str, num_layers: int, recipe: Recipe | None) -> Any:
    """A GPT of random weights, without dropout and with few words, for the head is no part of this."""
    import transformers

    config = config_of_size(size)
    config.update({"n_layer": num_layers, "vocab_size": 256, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).train()
    if recipe is not None:
        convert(model, recipe)
    return model


def _forget_gradients(module: nn.Module) -> None:
    """As an optimizer would, which also makes weights change: the next step casts them anew."""
    for parameter in module.parameters():
        parameter.grad = None
        with torch.no_grad():
            parameter.mul_(1.0)


def _on_ranks(number: int, rounds: int) -> dict[str, list[float]]:
    """The seconds of each turn that rank 0 of so many sees."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603
        [*words, "-m", __name__, str(rounds)], stdout=subprocess.PIPE, text=True, env=environment, check=True
    )
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _rank(rounds: int) -> None:
    """What each rank does: both candidates in turn, in step with the others."""
    keep_freed_memory()
    join()
    size = int(os.environ["WORLD_SIZE"])
    mesh = make_mesh(replace(Parallel(), fsdp=size))
    ids = torch.randint(0, 256, (1, TOKENS))

    def step_of(recipe: Recipe | None) -> Callable[[], object]:
        model = _model(RANKED, NUM_LAYERS, recipe)
        if mesh is not None:
            shard(model, mesh["fsdp"])

        def step() -> None:
            with bf16_through_float32(model), torch.autocast("cpu", torch.bfloat16):
                loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            _forget_gradients(model)

        return step

    found = turns({BF16: step_of(None), FP8: step_of(Recipe.amax())}, rounds)
    if size > 1:
        dist.destroy_process_group()
    if os.environ["RANK"] == "0":
        print(json.dumps(found))  # noqa: T201  for the process that asked


if __name__ == "__main__":
    _rank(int(sys.argv[1]))
