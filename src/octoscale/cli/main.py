"""The command line: each command reads its options, makes one call into the layers below, and prints.

Torch is imported inside the commands that need it, so that `octoscale --help` answers at once. A mistake of the user's
is one line and exit code 2; OCTOSCALE_TRACEBACK=1 shows where it was noticed. A defect of ours is a traceback and exit
code 1 (system/explained.py). Ctrl-C ends a run with exit code 130 and leaves what was measured until then.
"""

import io
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octoscale.checkpoints.settings import Quantization
from octoscale.cli.asked import check_training, check_validation
from octoscale.system.explained import explained
from octoscale.system.heap import keep_freed_memory
from octoscale.system.printable import printable
from octoscale.system.streams import open_missing_streams
from octoscale.system.waiting import bound_spinning
from octoscale.training.settings import Training, with_preset
from octoscale.validation.settings import Validation

if TYPE_CHECKING:
    from octoscale.conversion.convert import ConversionReport
    from octoscale.numerics.recipe import Recipe

app = typer.Typer(
    help="FP8 for language models, with scales that you can see: does a model survive 8-bit floating point, with "
    "which scaling, and where does it break? Start with: octoscale demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_DEMO_TOKENS = 8192

_Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A name from `octoscale models`, a checkpoint folder, a .gguf file, or a hub id."
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
_Scalings = Annotated[
    list[str],
    typer.Option(
        "--scaling",
        help="bf16, fp16, fp32 (no FP8), amax, amax:margin=3, cscale:-1, delayed:history=16. Repeat it to compare.",
    ),
]
_MaybeScalings = Annotated[
    list[str] | None,
    typer.Option(
        "--scaling",
        help="bf16, fp16, fp32 (no FP8), amax, amax:margin=3, cscale:-1, delayed:history=16. Repeat it to compare. "
        "Unless given: bf16 and amax; a checkpoint of FP8 weights has one only, its own.",
    ),
]
_Formats = Annotated[str, typer.Option(help="ocp (e4m3fn, e5m2) or fnuz (e4m3fnuz, e5m2fnuz).")]
_Skip = Annotated[
    list[str] | None,
    typer.Option("--skip", help="Keep layers whose name matches out of FP8: down_proj, layers.0.*. Repeatable."),
]
_Text = Annotated[str, typer.Option(help="A UTF-8 text file, or pydoc: the help texts that come with Python.")]
_Window = Annotated[int, typer.Option(help="Tokens in a window; each is one forward pass.")]
_Tokens = Annotated[int | None, typer.Option(help="How many tokens of the text to read. All, if not given.")]
_Out = Annotated[Path | None, typer.Option(help="The run's folder. A new one below runs/, if not given.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run that --out holds.")]
_Every = Annotated[int, typer.Option(help="Record histograms of exponents on each N-th window; 0 for never.")]
_Fp8Head = Annotated[
    bool,
    typer.Option(
        "--fp8-head",
        help="Put the head's weight into FP8 in memory, and an embedding that shares it: less memory, more perplexity.",
    ),
]
_HugePages = Annotated[
    bool,
    typer.Option(help="Copy the weights into pages of 2 MB if they fit: faster, but not shared with other processes."),
]
_Dtype = Annotated[str, typer.Option(help="The model's own precision: bf16, fp16 or fp32.")]
_Task = Annotated[
    Path | None, typer.Option(help='Also answer multiple-choice questions: JSON lines {"query", "choices", "gold"}.')
]
_Limit = Annotated[int | None, typer.Option(help="Use only the first N questions of --task.")]


def main() -> None:
    """Run the command line; the entry point of the package."""
    bound_spinning()
    open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character shows its number
    with explained():
        app()


bench_app = typer.Typer(
    help="Measure casts and products beside torch's own and the machine's limits. Let nothing else run meanwhile.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(bench_app, name="bench")


@bench_app.command("quantize")
def bench_quantize(as_json: _Json = False) -> None:
    """float32 -> e4m3fn under amax: ours, torch eager, torchao and ml_dtypes where installed. A minute."""
    from octoscale.bench import kernels
    from octoscale.report import terminal

    report = kernels.quantize()
    _show(report if as_json else terminal.bench_table(report))


@bench_app.command("linear")
def bench_linear(as_json: _Json = False) -> None:
    """X @ w^T of one row and of 512, weights in e4m3fn: ours, F.linear in bfloat16, torch._scaled_mm. Half a minute."""
    from octoscale.bench import kernels
    from octoscale.report import terminal

    report = kernels.linear()
    _show(report if as_json else terminal.bench_table(report))


@bench_app.command("train")
def bench_train(
    model: Annotated[str, typer.Option(help="A name from `octoscale models`.")] = "smollm2-135m", as_json: _Json = False
) -> None:
    """A training step of 4 x 256 tokens: bfloat16 autocast, ours, torchao's emulation where installed. Minutes."""
    from octoscale.bench import train
    from octoscale.report import terminal

    keep_freed_memory()
    report = train.train(model)
    _show(report if as_json else terminal.bench_table(report))


@bench_app.command("generate")
def bench_generate(
    model: Annotated[
        str, typer.Option(help="A Llama: llama-1b (random weights), smollm2-135m, a folder.")
    ] = "llama-1b",
    llama_bench: Annotated[
        Path | None, typer.Option("--llama-bench", help="llama.cpp's llama-bench, to be measured too.")
    ] = None,
    fp8_head: _Fp8Head = False,
    as_json: _Json = False,
) -> None:
    """64 tokens after 16, and a prompt of 512: ours, bfloat16, torchao, quanto, llama.cpp. Minutes."""
    from octoscale.bench import generate
    from octoscale.report import terminal

    report = generate.generate(model, llama_bench, fp8_head=fp8_head)
    _show(report if as_json else terminal.bench_table(report))


@bench_app.command("checkpoint")
def bench_checkpoint(
    model: Annotated[str, typer.Option(help="A name from `octoscale models`, or a folder.")] = "llama-1b",
    as_json: _Json = False,
) -> None:
    """A bfloat16 checkpoint to FP8 beside `cp` of it, and the memory that takes. A minute; Linux."""
    from octoscale.bench import checkpoint
    from octoscale.report import terminal

    keep_freed_memory()
    report = checkpoint.checkpoint(model)
    _show(report if as_json else terminal.bench_table(report))


@app.command()
def info(as_json: _Json = False) -> None:
    """Say which backend this machine uses, with which instructions and threads, and why."""
    from octoscale.bench import kernels
    from octoscale.report import terminal

    machine = kernels.machine()
    _show(machine if as_json else terminal.facts_table(machine))


@app.command()
def formats(as_json: _Json = False) -> None:
    """Print the FP8 formats and their numbers (the paper's Table 7)."""
    from dataclasses import asdict

    from octoscale.numerics.formats import FORMATS
    from octoscale.report import terminal

    derived = ("max", "min_normal_exponent", "min_subnormal_exponent", "torch_name")
    rows = [asdict(fmt) | {key: getattr(fmt, key) for key in derived} for fmt in FORMATS.values()]
    _show(rows if as_json else terminal.formats_table())


@app.command()
def models(
    out: Annotated[Path | None, typer.Argument(metavar="[OUT]", help="The folder that --materialize writes.")] = None,
    materialize: Annotated[
        str | None, typer.Option(metavar="NAME", help="Write a checkpoint of random FP8 weights of this size to OUT.")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Cut it to so many decoder layers.")] = None,
    seed: Annotated[int, typer.Option(help="Of its weights.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what OUT holds.")] = False,
    as_json: _Json = False,
) -> None:
    """List the models that have a name: a pretrained one, and the paper's sizes with random weights. Or write one."""
    from octoscale.models.loading import named_models
    from octoscale.report import terminal

    if (out is None) != (materialize is None):
        raise ValueError("OUT and --materialize NAME go together: which size, and where to")
    if out is not None and materialize is not None:
        _materialize(materialize, out, layers, seed, overwrite, as_json)
        return
    if layers is not None:
        raise ValueError("--layers is for --materialize")
    _show(named_models() if as_json else terminal.models_table(named_models()))


def _materialize(size: str, out: Path, layers: int | None, seed: int, overwrite: bool, as_json: bool) -> None:
    from octoscale.models.materialize import materialize
    from octoscale.report import terminal

    with terminal.bytes_bar(terminal.PlainConsole(stderr=True)) as progress:
        done = materialize(size, out, num_layers=layers, seed=seed, overwrite=overwrite, progress=progress)
    _show(done if as_json else terminal.facts_table(done))


@app.command()
def inspect(
    model: _Model,
    scaling: Annotated[str, typer.Option(help="As in validate.")] = "amax",
    formats: _Formats = Validation.formats,
    skip: _Skip = None,
    run: Annotated[
        bool, typer.Option("--run", help="Load the weights and call the model once: name FP8 layers that never ran.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Say of every module of a model whether it goes to FP8, in which formats, or why it stays."""
    from octoscale.numerics.recipe import Recipe, parse_scaling

    recipe = parse_scaling(scaling, formats, skip or ())
    if not isinstance(recipe, Recipe):
        raise ValueError(f"scaling {scaling} is no FP8: there is nothing to inspect")
    report, num_fp8, not_run = _inspected(model, recipe, run)
    if as_json:
        _show(report.to_json() | ({"not_run": not_run} if run else {}))
        return
    _show(str(report))
    if run:
        named = f"; not called (experts may get no token, a text runs no picture): {', '.join(not_run)}"
        _show(f"{num_fp8 - len(not_run)} of {num_fp8} FP8 layers ran{named * bool(not_run)}")


def _inspected(model: str, recipe: "Recipe", run: bool) -> "tuple[ConversionReport, int, list[str]]":
    """The report; with `run` also how many layers are FP8, and those of them that a call of the model does not reach.

    A checkpoint in FP8 runs as it is, and the report says what would become of such a model.
    """
    from octoscale.conversion.convert import convert, plan
    from octoscale.conversion.record import fp8_layers
    from octoscale.conversion.trial import layers_not_run
    from octoscale.models.loading import is_stored, load, skeleton

    if not run:
        return plan(skeleton(model), recipe), 0, []
    loaded = load(model).model
    report = plan(skeleton(model), recipe) if is_stored(model) else convert(loaded, recipe)
    return report, len(fp8_layers(loaded)), layers_not_run(loaded)


@app.command()
def validate(
    context: typer.Context,
    model: _Model,
    scaling: _MaybeScalings = None,
    text: _Text = Validation.text,
    window: _Window = Validation.window,
    tokens: _Tokens = None,
    formats: _Formats = Validation.formats,
    skip: _Skip = None,
    dtype: _Dtype = Validation.dtype,
    every: _Every = Validation.every,
    task: _Task = None,
    limit: _Limit = None,
    batch: Annotated[
        bool,
        typer.Option("--batch", help="Layer by layer over all windows: each weight is read once. Larger than memory."),
    ] = False,
    fp8_head: _Fp8Head = False,
    out: _Out = None,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """Measure a model's perplexity on a text under one or several scalings, and record every scale."""
    from octoscale.validation.run import scalings_for

    plan = Validation(
        model=model,
        scalings=scalings_for(model, scaling or ()),
        text=text,
        window=window,
        tokens=tokens,
        formats=formats,
        skip=skip or (),
        dtype=dtype,
        every=every,
        task=task,
        limit=limit,
        by_layer=batch,
        fp8_head=fp8_head,
    )
    check_validation(_typed(context), plan)
    _carry_out(plan, _folder(out, "validate"), overwrite, as_json)


@app.command()
def sweep(
    context: typer.Context,
    model: _Model,
    bias: Annotated[str, typer.Option(help="The CSCALE biases: a range -8:6, or a list -3,0,3.")] = "-8:6",
    text: _Text = Validation.text,
    window: _Window = Validation.window,
    tokens: _Tokens = _DEMO_TOKENS,
    formats: _Formats = Validation.formats,
    skip: _Skip = None,
    dtype: _Dtype = Validation.dtype,
    every: _Every = Validation.every,
    task: _Task = None,
    limit: _Limit = None,
    out: _Out = None,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """Find the constant scales (FP8-CSCALE) that a model survives.

    A bias passes if its perplexity is within 0.5 % of FP8-AMAX's; with --task, if its accuracy is at least 99.5 % of
    the high-precision one.
    """
    from octoscale.validation.bias_range import parse_biases
    from octoscale.validation.run import check_sweep

    plan = Validation(
        model=model,
        scalings=(dtype, "amax", *(f"cscale:{number}" for number in parse_biases(bias))),
        text=text,
        window=window,
        tokens=tokens,
        formats=formats,
        skip=skip or (),
        dtype=dtype,
        every=every,
        task=task,
        limit=limit,
    )
    check_validation(_typed(context), plan)
    check_sweep(model)
    _carry_out(plan, _folder(out, "sweep"), overwrite, as_json, find_range=True)


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="1,024 tokens and three biases: about a minute.")] = False,
    tokens: Annotated[int | None, typer.Option(help="Tokens of text: 8192, or 1024 with --quick.")] = None,
    out: _Out = None,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """See what FP8 does to a real model: SmolLM2-135M in bf16, FP8-AMAX, and FP8-CSCALE with biases -8 to 6."""
    from octoscale.validation.bias_range import parse_biases

    if tokens is not None and tokens < Validation.window:
        raise ValueError(f"--tokens {tokens}: the demo reads windows of {Validation.window} tokens, one at least")
    biases = parse_biases("-8,-1,6" if quick else "-8:6")
    plan = Validation(
        model="smollm2-135m",
        scalings=("bf16", "amax", *(f"cscale:{number}" for number in biases)),
        tokens=tokens if tokens is not None else 1024 if quick else _DEMO_TOKENS,
    )
    _carry_out(plan, _folder(out, "demo"), overwrite, as_json, find_range=True)


@app.command()
def train(
    context: typer.Context,
    model: _Model,
    scaling: Annotated[
        str, typer.Option(help="bf16, fp16, fp32 (no FP8, and --dtype of that name), or as in validate: one.")
    ] = Training.scaling,
    text: Annotated[
        str, typer.Option(help="A UTF-8 text file, pydoc, or a data set of the hub, hf:NAME[:CONFIGURATION[:SPLIT]].")
    ] = Training.text,
    task: Annotated[
        str | None,
        typer.Option(
            help="Train a classifier instead: sst2, mnli, qqp (from the hub), or a file .tsv or .jsonl with a column "
            "label, and one or two of text."
        ),
    ] = Training.task,
    eval_task: Annotated[
        Path | None, typer.Option(help="The labeled file for validation; else the hub's, or the last part of --task.")
    ] = Training.eval_task,
    tokens: _Tokens = Training.tokens,
    examples: Annotated[int | None, typer.Option(help="How many examples of --task to read. All, if not given.")] = (
        Training.examples
    ),
    window: Annotated[int, typer.Option(help="Tokens in a window of text; examples are cut off there.")] = (
        Training.window
    ),
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = Training.steps,
    batch: Annotated[int, typer.Option(help="Windows, or examples, in a micro-batch.")] = Training.batch,
    accumulate: Annotated[int, typer.Option(help="Micro-batches in a step.")] = Training.accumulate,
    learning_rate: Annotated[float, typer.Option(help="Constant; AdamW as in the paper.")] = Training.learning_rate,
    warmup: Annotated[int, typer.Option(help="Steps in which the learning rate rises to that.")] = Training.warmup,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = Training.weight_decay,
    loss_scale: Annotated[
        str | None,
        typer.Option(help="The loss is multiplied by: a number, dynamic, or none.  [default: dynamic for fp16]"),
    ] = Training.loss_scale,
    preset: Annotated[
        str | None,
        typer.Option(help="paper: the paper's hyper-parameters for a size of its GPT, where no option says otherwise."),
    ] = None,
    validation: Annotated[
        float, typer.Option(help="The part of the text or task, at its end, that is kept for validation.")
    ] = Training.validation,
    formats: _Formats = Training.formats,
    skip: _Skip = None,
    dtype: Annotated[str, typer.Option(help="bf16 or fp16 (autocast on float32 weights), or fp32.")] = Training.dtype,
    seed: Annotated[int, typer.Option(help="Of random weights and of the order of the data.")] = Training.seed,
    every: Annotated[int, typer.Option(help="Record histograms of exponents on each N-th step; 0: never.")] = (
        Training.every
    ),
    save_every: Annotated[int, typer.Option(help="Write a checkpoint after each N-th step; 0: never.")] = (
        Training.save_every
    ),
    report_to: Annotated[
        list[str] | None, typer.Option(help="Also send losses and scales to tensorboard, wandb, ... Repeatable.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of --out, if it holds one.")
    ] = False,
    out: _Out = None,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """Train or fine-tune a language model or a classifier, in FP8 or not, and record every scale and gradient."""
    if resume and (out is None or overwrite):
        raise ValueError("--resume goes on with the run that --out names" + (", not --overwrite" if overwrite else ""))
    values = {
        "model": model,
        "scaling": scaling,
        "text": text,
        "task": task,
        "eval_task": eval_task,
        "tokens": tokens,
        "examples": examples,
        "window": window,
        "steps": steps,
        "batch": batch,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "warmup": warmup,
        "weight_decay": weight_decay,
        "loss_scale": loss_scale,
        "validation": validation,
        "formats": formats,
        "skip": skip or (),
        "dtype": dtype,
        "seed": seed,
        "every": every,
        "save_every": save_every,
        "report_to": report_to or (),
    }
    typed = _typed(context)
    plan = Training(**(values if preset is None else with_preset(preset, values, typed)))
    check_training(typed, plan)
    _train(plan, _folder(out, "train"), overwrite, resume, as_json)


def _typed(context: typer.Context) -> set[str]:
    """The options that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}


def _train(plan: Training, folder: Path, overwrite: bool, resume: bool, as_json: bool) -> None:
    """Run a training with a bar of its steps, then show what was reached."""
    from octoscale.report import terminal
    from octoscale.training.run import run_training

    keep_freed_memory()
    console = terminal.PlainConsole(stderr=True)
    console.print_text(f"loading {plan.model}; the run goes to {folder}")
    try:
        with terminal.step_bar(console, plan.steps) as progress:
            run = run_training(plan, folder, overwrite=overwrite, go_on=resume, progress=progress)
    except KeyboardInterrupt:
        console.print_text(f"interrupted; what was recorded until now: {folder}")
        raise typer.Exit(130) from None
    summary = run.read_json(run.summary)
    _show({**summary, "run": str(run.path)} if as_json else terminal.training_table(summary))
    if not as_json:
        note = run.read_json(run.header).get("note", "")
        _show("\n".join([*([str(note)] if note else []), f"records, losses and the trained model: {run.path}"]))


@app.command()
def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint folder of safetensors, or a hub id.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new checkpoint's folder.")],
    scaling: Annotated[str, typer.Option(help="amax, amax:margin=1, cscale:-1.")] = Quantization.scaling,
    activations: Annotated[
        str, typer.Option(help="dynamic (scaled by their own amax), static (by one scale a layer), or none.")
    ] = Quantization.activations,
    calibrate: Annotated[
        str, typer.Option(help="The text that static scales are taken from, as --text of validate.")
    ] = Quantization.calibrate,
    tokens: Annotated[int, typer.Option(help="Tokens of that text.")] = Quantization.tokens,
    window: Annotated[int, typer.Option(help="Tokens in a window of it.")] = Quantization.window,
    layout: Annotated[str, typer.Option(help="compressed-tensors, vllm-fp8 or hf-fp8.")] = Quantization.layout,
    tie_fused: Annotated[
        bool, typer.Option("--tie-fused", help="One scale for q, k, v and one for gate, up: vLLM fuses them.")
    ] = Quantization.tie_fused,
    skip: _Skip = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what a stopped run left.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT, if octoscale wrote all of it.")] = False,
    as_json: _Json = False,
) -> None:
    """Write a model's checkpoint with FP8 weights, tensor by tensor, in a layout that others load."""
    from octoscale.models.export import run_quantization
    from octoscale.report import terminal

    plan = Quantization(
        model=model,
        scaling=scaling,
        activations=activations,
        calibrate=calibrate,
        tokens=tokens,
        window=window,
        layout=layout,
        tie_fused=tie_fused,
        skip=skip or (),
    )
    keep_freed_memory()
    try:
        with terminal.bytes_bar(terminal.PlainConsole(stderr=True)) as progress:
            done = run_quantization(plan, out, resume=resume, overwrite=overwrite, progress=progress)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; --resume goes on\n")
        raise typer.Exit(130) from None
    _show(done if as_json else terminal.facts_table(done))


_Prompt = Annotated[str, typer.Option(help="What the model is to go on with.")]
_NewTokens = Annotated[int, typer.Option("--max-new-tokens", help="Stop after so many tokens.")]
_Temperature = Annotated[float, typer.Option(help="0: always the likeliest token. 1: as likely as the model says.")]
_TopP = Annotated[float, typer.Option(help="Choose among the likeliest tokens that make up this much probability.")]
_WriterScaling = Annotated[
    str | None,
    typer.Option(
        "--scaling", help="amax (unless given), cscale:-1, bf16, ... For a checkpoint of FP8 weights: leave it out."
    ),
]
_Activations = Annotated[
    str | None,
    typer.Option(help="dynamic, static (with cscale), or none (weights only). [default: dynamic, or the checkpoint's]"),
]
_NEW_TOKENS, _TEMPERATURE, _TOP_P, _SEED = 128, 0.0, 1.0, 0


@app.command()
def generate(
    model: _Model,
    prompt: _Prompt,
    max_new_tokens: _NewTokens = _NEW_TOKENS,
    temperature: _Temperature = _TEMPERATURE,
    top_p: _TopP = _TOP_P,
    seed: Annotated[int, typer.Option(help="Of the random choices.")] = _SEED,
    scaling: _WriterScaling = None,
    activations: _Activations = None,
    fp8_head: _Fp8Head = False,
    huge_pages: _HugePages = True,
    as_json: _Json = False,
) -> None:
    """Go on with a text, in FP8: each token is printed when it comes."""
    from octoscale.inference.generate import Sampling, Writer

    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    writer = Writer(model, scaling, activations, fp8_head=fp8_head, huge_pages=huge_pages)
    ids = writer.encode(prompt)
    writer.check_room(ids, sampling)
    sys.stderr.write(f"{printable(writer.describe)}\n")
    start = time.perf_counter()
    try:
        new = writer.write(ids, sampling, _nothing if as_json else _emit)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        raise typer.Exit(130) from None
    seconds = time.perf_counter() - start
    if as_json:
        facts = {"model": model, "scaling": writer.scaling, "prompt": prompt, "text": new.text}
        done = {"new_tokens": len(new.ids), "seconds": seconds, "fusion": str(writer.fusion), "pages": writer.pages}
        _show(facts | done)
        return
    sys.stdout.write("\n")
    sys.stderr.write(
        f"{len(new.ids)} tokens, {len(new.ids) / seconds:.1f} a second, the prompt's {len(ids)} included\n"
    )


@app.command()
def chat(
    model: _Model,
    max_new_tokens: _NewTokens = 512,
    temperature: _Temperature = _TEMPERATURE,
    top_p: _TopP = _TOP_P,
    seed: Annotated[int, typer.Option(help="Of the random choices.")] = _SEED,
    scaling: _WriterScaling = None,
    activations: _Activations = None,
    fp8_head: _Fp8Head = False,
    huge_pages: _HugePages = True,
) -> None:
    """Talk with a model, in FP8: a line is a turn; an empty line or Ctrl-D ends."""
    from octoscale.inference.generate import Sampling, Writer

    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    writer = Writer(model, scaling, activations, fp8_head=fp8_head, huge_pages=huge_pages)
    turns: list[dict[str, str]] = []
    writer.encode_chat([{"role": "user", "content": "?"}])
    sys.stderr.write(f"{printable(writer.describe)}\n")
    try:
        while line := _ask():
            turns.append({"role": "user", "content": line})
            reply = writer.write(writer.encode_chat(turns), sampling, _emit)
            turns.append({"role": "assistant", "content": reply.text})
            sys.stdout.write("\n")
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        raise typer.Exit(130) from None


def _ask() -> str:
    """A line from the user; empty at the end."""
    sys.stderr.write("> ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _nothing(_: str) -> None:
    pass


def _emit(piece: str) -> None:
    sys.stdout.write(printable(piece) if sys.stdout.isatty() else piece)
    sys.stdout.flush()


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="The folder of a run, or of several trainings.")],
    module: Annotated[str | None, typer.Option(help="The layer whose exponents are drawn.")] = None,
    as_json: _Json = False,
) -> None:
    """Draw the figures of a run again, and print its table; of several trainings, compare the losses."""
    from octoscale.report import showing

    if len(runs) == 1:
        showing.show(runs[0], as_json=as_json, module=module)
    elif module is not None:
        raise ValueError("--module is for the figures of one run")
    else:
        showing.compare(runs, as_json=as_json)


def _carry_out(plan: Validation, folder: Path, overwrite: bool, as_json: bool, *, find_range: bool = False) -> None:
    """Run a validation with a progress bar, then show it; on Ctrl-C say what is there and exit with 130."""
    from octoscale.report import showing, terminal
    from octoscale.validation.run import check_finite, run_validation

    keep_freed_memory()
    console = terminal.PlainConsole(stderr=True)
    console.print_text(f"loading {plan.model}; the run goes to {folder}")
    try:
        unit = "layers" if plan.by_layer else "windows"
        with terminal.progress_bar(console, len(plan.scalings), unit) as progress:
            run = run_validation(plan, folder, overwrite=overwrite, find_range=find_range, progress=progress)
    except KeyboardInterrupt:
        there = f"; what was measured until now: octoscale report {folder}" if (folder / "run.json").exists() else ""
        console.print_text(f"interrupted{there}")
        raise typer.Exit(130) from None
    showing.show(run.path, as_json=as_json)
    check_finite(run)


def _show(content: Any) -> None:
    """Print a table, a text, or JSON."""
    from octoscale.report.terminal import print_content

    print_content(content)


def _folder(out: Path | None, command: str) -> Path:
    return out or Path("runs") / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"
