"""The commands of `octoscale bench`: what the kernels, a training, a model that writes, and a checkpoint take."""

from pathlib import Path
from typing import Annotated, Any

import typer

from octoscale.cli.app import MEASURE, app, ending, group
from octoscale.cli.options import Json
from octoscale.cli.output import say, show
from octoscale.layers.schemes import REACHES
from octoscale.numerics.granularity import GRANULARITIES, TENSOR, get_granularity
from octoscale.system.errors import UserError
from octoscale.system.heap import keep_freed_memory

bench = group(
    "Measure casts and products beside torch's own and the machine's limits. Let nothing else run meanwhile.",
    ending("octoscale bench linear", "compared"),
)
app.add_typer(bench, name="bench", rich_help_panel=MEASURE)

_Named = Annotated[str, typer.Option(help="A name from `octoscale models`, or a folder.")]
_LlamaBench = Annotated[Path | None, typer.Option("--llama-bench", help="llama.cpp's llama-bench, to be measured too.")]
_Granularity = Annotated[
    str, typer.Option(help=f"{', '.join(GRANULARITIES)}: over which values a scale reaches. Beside one a tensor.")
]
_Reach = Annotated[str, typer.Option("--granularity", help=f"{', '.join(REACHES)}: over which values a scale reaches.")]
_Fp8Head = Annotated[bool, typer.Option("--fp8-head", help="As in generate.")]


@bench.command(epilog=ending("octoscale bench quantize", "compared"))
def quantize(granularity: _Granularity = TENSOR.name, as_json: Json = False) -> None:
    """float32 -> e4m3fn under amax: ours, torch eager, torchao and ml_dtypes where installed. A minute."""
    from octoscale.bench import kernels

    one = get_granularity(granularity) is TENSOR
    _show(kernels.quantize() if one else kernels.quantize_groups(granularity), as_json)


@bench.command(epilog=ending("octoscale bench linear", "compared"))
def linear(granularity: _Granularity = TENSOR.name, as_json: Json = False) -> None:
    """X @ w^T of one row and of 512, weights in e4m3fn: ours, F.linear in bfloat16, torch._scaled_mm. Half a minute."""
    from octoscale.bench import kernels

    one = get_granularity(granularity) is TENSOR
    _show(kernels.linear() if one else kernels.linear_groups(granularity), as_json)


@bench.command(epilog=ending("octoscale bench train --model gpt-111m", "compared"))
def train(model: _Named = "smollm2-135m", as_json: Json = False) -> None:
    """A training step of 4 x 256 tokens: bfloat16 autocast, ours, torchao's emulation where installed. Minutes."""
    from octoscale.bench import train

    keep_freed_memory()
    _show(train.train(model), as_json)


@bench.command(epilog=ending("octoscale bench growth", "compared"))
def growth(as_json: Json = False) -> None:
    """Layers of 111M to 1.3B, one rank and two: a step's time over bfloat16's. Minutes."""
    from octoscale.bench import growth

    keep_freed_memory()
    _show(growth.growth(), as_json)


@bench.command(epilog=ending("octoscale bench generate --model smollm2-135m", "compared"))
def generate(
    model: Annotated[
        str, typer.Option(help="A Llama: llama-1b (random weights), smollm2-135m, a folder.")
    ] = "llama-1b",
    llama_bench: _LlamaBench = None,
    fp8_head: _Fp8Head = False,
    granularity: _Reach = TENSOR.name,
    as_json: Json = False,
) -> None:
    """64 tokens after 16, and a prompt of 512: ours, bfloat16, torchao, quanto, llama.cpp. Minutes.

    With --granularity row or block: ours so, and ours with a scale a tensor.
    """
    from octoscale.bench import generate

    if granularity == TENSOR.name:
        _show(generate.generate(model, llama_bench, fp8_head=fp8_head), as_json)
        return
    if llama_bench is not None:
        raise UserError(f"--granularity {granularity} compares ours alone: leave out --llama-bench")
    _show(generate.generate_groups(granularity, model, fp8_head=fp8_head), as_json)


@bench.command(epilog=ending("octoscale bench checkpoint", "compared"))
def checkpoint(model: _Named = "llama-1b", as_json: Json = False) -> None:
    """A bfloat16 checkpoint to FP8 beside `cp` of it, and the memory that takes. A minute; Linux."""
    from octoscale.bench import checkpoint

    keep_freed_memory()
    _show(checkpoint.checkpoint(model), as_json)


@bench.command(epilog=ending("octoscale bench advise --model smollm2-135m --keep 3", "compared"))
def advise(
    model: _Named = "smollm2-135m",
    scaling: Annotated[str, typer.Option(help="As in advise.")] = "amax",
    text: Annotated[str, typer.Option(help="As in advise.")] = "pydoc",
    tokens: Annotated[int, typer.Option(help="Of the text to choose with, and of the one after it.")] = 1024,
    window: Annotated[int, typer.Option(help="Tokens in a window.")] = 512,
    keep: Annotated[int, typer.Option(help="Layers in a list.")] = 3,
    dtype: Annotated[str, typer.Option(help="As in advise.")] = "fp32",
    as_json: Json = False,
) -> None:
    """Estimates beside measured costs of each layer, the list of advise beside exhaustive greedy's. Half an hour."""
    from octoscale.bench import advise

    keep_freed_memory()
    words: dict[str, Any] = {
        "scaling": scaling,
        "text": text,
        "tokens": tokens,
        "window": window,
        "keep": keep,
        "dtype": dtype,
    }
    _show(advise.advise(model, **words, say=say), as_json)


def _show(report: dict[str, Any], as_json: bool) -> None:
    from octoscale.report import terminal

    show(report if as_json else terminal.bench_table(report))
