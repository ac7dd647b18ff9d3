"""Commands that look: at the machine, the formats, a model before anything is done to it, and a run afterwards."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octoscale.cli.app import LOOK, app, ending
from octoscale.cli.options import Folder, Json, NamedFolder, Overwrite, Words, takes
from octoscale.cli.output import interruptible, new_folder, say, show
from octoscale.conversion.settings import Inspection
from octoscale.models.settings import Materialization
from octoscale.system.errors import UserError

if TYPE_CHECKING:
    from octoscale.conversion.convert import ConversionReport
    from octoscale.numerics.recipe import Recipe
    from octoscale.report.contents import RunContents

_ONLY = "Draw this figure alone: perplexity, bias_map, scale_bias, exponents, clipping, ...; or fig5. Repeatable."
_FORMATS = "pdf, svg, png: those that are wanted, with commas.  [default: the style's own]"
_FIGURES_OUT = "The folder for them.  [default: RUN/figures/STYLE]"


@app.command(rich_help_panel=LOOK, epilog=ending("octoscale info", "index"))
def info(as_json: Json = False) -> None:
    """Say which backend this machine uses, with which instructions and threads, and why."""
    from octoscale.bench import kernels
    from octoscale.report import terminal

    machine = kernels.machine()
    show(machine if as_json else terminal.facts_table(machine))


@app.command(rich_help_panel=LOOK, epilog=ending("octoscale formats", "method"))
def formats(as_json: Json = False) -> None:
    """Print the FP8 formats and their numbers (the paper's Table 7)."""
    from dataclasses import asdict

    from octoscale.numerics.formats import FORMATS
    from octoscale.report import terminal

    derived = ("max", "min_normal_exponent", "min_subnormal_exponent", "torch_name")
    rows = [asdict(fmt) | {key: getattr(fmt, key) for key in derived} for fmt in FORMATS.values()]
    show(rows if as_json else terminal.formats_table())


@app.command(
    rich_help_panel=LOOK,
    epilog=ending("octoscale models --materialize llama2-70b --layers 8 llama2-70b-8", "INFERENCE"),
)
@takes(Materialization)
def models(
    words: Words[Materialization],
    out: Folder = None,
    named_out: NamedFolder = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """List the models that have a name: a pretrained one, and the paper's sizes with random weights. Or write one."""
    from octoscale.models.loading import named_models
    from octoscale.report import terminal

    settings = words.settings()
    if settings.materialize is not None:
        _materialize(settings.materialize, settings, new_folder(out, named_out), overwrite, as_json)
        return
    if out is not None or named_out is not None:
        raise UserError("OUT and --materialize NAME go together: which size, and where to")
    if overwrite:
        raise UserError("--overwrite is for --materialize")
    show(named_models() if as_json else terminal.models_table(named_models()))


def _materialize(size: str, settings: Materialization, out: Path, overwrite: bool, as_json: bool) -> None:
    from octoscale.models.materialize import materialize
    from octoscale.report import terminal

    words: dict[str, Any] = {"num_layers": settings.layers, "seed": settings.seed, "overwrite": overwrite}
    with terminal.bytes_bar(terminal.PlainConsole(stderr=True)) as progress:
        done = materialize(size, out, **words, progress=progress)
    show(done if as_json else terminal.facts_table(done))


@app.command(rich_help_panel=LOOK, epilog=ending("octoscale inspect MODEL --skip down_proj", "guides/validate"))
@takes(Inspection)
def inspect(words: Words[Inspection], as_json: Json = False) -> None:
    """Say of every module of a model whether it goes to FP8, in which formats, or why it stays.

    Of a folder that is in FP8 already: how far its scales reach, layer by layer, and what becomes of inputs.
    """
    from octoscale.models.stored import report_of_stored
    from octoscale.numerics.recipe import Recipe, parse_scaling

    settings = words.settings()
    stored = report_of_stored(settings.model)
    if stored is not None:
        _check_plain(settings)
        ran = _ran(settings) if settings.run else None
        show(stored.to_json() | ({} if ran is None else {"not_run": ran[1]}) if as_json else str(stored))
        if ran is not None and not as_json:
            show(_words_of_run(*ran))
        return
    recipe = parse_scaling(settings.scaling, settings.formats, settings.skip)
    if not isinstance(recipe, Recipe):
        raise UserError(f"scaling {settings.scaling} is no FP8: there is nothing to inspect")
    report, num_fp8, not_run = _inspected(settings, recipe)
    if as_json:
        show(report.to_json() | ({"not_run": not_run} if settings.run else {}))
        return
    show(str(report))
    if settings.run:
        show(_words_of_run(num_fp8, not_run))


def _check_plain(settings: Inspection) -> None:
    """UserError for words about what a model would become, of one that is in FP8 already."""
    default = Inspection(model=settings.model, run=settings.run)
    if settings != default:
        raise UserError(f"{settings.model} holds FP8 weights with their scales: inspect it without other options")


def _ran(settings: Inspection) -> tuple[int, list[str]]:
    """How many layers are FP8, and those of them that a call of the model does not reach."""
    from octoscale.conversion.record import fp8_layers
    from octoscale.conversion.trial import layers_not_run
    from octoscale.models.loading import load

    model = load(settings.model).model
    return len(fp8_layers(model)), layers_not_run(model)


def _words_of_run(num_fp8: int, not_run: list[str]) -> str:
    named = f"; not called (experts may get no token, a text runs no picture): {', '.join(not_run)}"
    return f"{num_fp8 - len(not_run)} of {num_fp8} FP8 layers ran{named * bool(not_run)}"


def _inspected(settings: Inspection, recipe: "Recipe") -> "tuple[ConversionReport, int, list[str]]":
    """The report; with --run also how many layers are FP8, and those of them that a call of the model does not reach.

    A checkpoint in FP8 on the hub runs as it is, and the report says what would become of such a model.
    """
    from octoscale.conversion.convert import convert, preview
    from octoscale.conversion.record import fp8_layers
    from octoscale.conversion.trial import layers_not_run
    from octoscale.models.loading import is_stored, load, skeleton

    if not settings.run:
        return preview(skeleton(settings.model), recipe), 0, []
    loaded = load(settings.model).model
    stored = is_stored(settings.model)
    report = preview(skeleton(settings.model), recipe) if stored else convert(loaded, recipe)
    return report, len(fp8_layers(loaded)), layers_not_run(loaded)


@app.command(rich_help_panel=LOOK, epilog=ending("octoscale diagnose runs/mine", "guides/report"))
def diagnose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, finished or not.")],
    as_json: Json = False,
) -> None:
    """Say what is wrong with a run: which tensor, since which step, by which numbers, and what to do."""
    from octoscale.report.diagnosis import rules, words

    found = rules.examine(run)
    show(found.to_json() if as_json else words.told(found))


@app.command(rich_help_panel=LOOK, epilog=ending("octoscale report runs/bf16 runs/amax", "guides/report"))
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="The folder of a run, or of several.")],
    module: Annotated[str | None, typer.Option(help="The layer whose exponents are drawn.")] = None,
    as_json: Json = False,
) -> None:
    """Write a page in which a run can be explored, draw its figures, print its table; of several, compare them.

    The page, report.html in the folder of the first RUN, needs no network and no program but a browser.
    """
    from octoscale.report import showing

    if len(runs) == 1:
        showing.show(runs[0], as_json=as_json, module=module, with_page=True)
    elif module is not None:
        raise UserError("--module is for the figures of one run")
    else:
        showing.compare(runs, as_json=as_json)


@app.command(
    rich_help_panel=LOOK,
    epilog=ending("octoscale figures runs/mine --style slides --only scale_bias", "guides/report"),
)
def figures(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run, of octoscale reproduce, or of octoscale arena.")
    ],
    style: Annotated[str, typer.Option(help="paper (for its columns), slides (16:9), or report.")] = "paper",
    format: Annotated[str | None, typer.Option(help=_FORMATS)] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help=_ONLY)] = None,
    module: Annotated[str | None, typer.Option(help="The layer whose exponents are drawn.")] = None,
    out: Annotated[Path | None, typer.Option(help=_FIGURES_OUT)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of the same names in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Draw the figures of a run, those of the paper that were reproduced, or a contest's, for a paper or for slides."""
    from octoscale.report.arena_contents import is_arena
    from octoscale.report.figures.publish import Request, publish, publish_arena, publish_paper
    from octoscale.report.paper_contents import is_reproduction, read_paper
    from octoscale.report.showing import show_published

    if overwrite and out is None:
        raise UserError("--overwrite is for --out: in the run's own folder, figures are always drawn anew")
    formats = [] if format is None else [name.strip() for name in format.split(",")]
    request = Request(style=style, formats=formats, only=only or (), out=out, overwrite=overwrite)
    if module is not None and (is_arena(run) or is_reproduction(run)):
        made_by = "arena" if is_arena(run) else "reproduce"
        raise UserError(f"--module is for the figures of a run; {run} holds those of octoscale {made_by}")
    if is_arena(run):
        show_published(run, publish_arena(run, request), [], as_json=as_json)
    elif is_reproduction(run):
        reproduced = read_paper(run)
        lacking = [f"damaged, and left out: {damage}" for damage in reproduced.damaged]
        show_published(run, publish_paper(reproduced, request), lacking, as_json=as_json)
    else:
        contents = _run_with_figures(run)
        show_published(contents.path, publish(contents, request, module), contents.missing, as_json=as_json)


def _run_with_figures(run: Path) -> "RunContents":
    """The run in a folder; FileNotFoundError, naming what else could be drawn, if it is none."""
    from octoscale.report.contents import read_run

    if not (run / "run.json").exists():
        raise FileNotFoundError(f"{run} is not a run, nor a folder of octoscale reproduce: no run.json, no made.json")
    return read_run(run)


@app.command(rich_help_panel=LOOK, epilog=ending("octoscale watch runs/mine", "guides/report"))
def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, which may go on.")],
    port: Annotated[int | None, typer.Option(help="0: any that is free.  [default: 8008, or one that is free]")] = None,
    host: Annotated[str, typer.Option(help="Another one lets others on the network read the run.")] = "127.0.0.1",
) -> None:
    """Serve the page of a run to this machine's browser; it updates by itself while the run goes on.

    Also of a run of another process, or one that died. Ctrl-C ends it.
    """
    from octoscale.report.page.server import is_loopback, serving
    from octoscale.runs.folder import RunFolder

    folder = RunFolder.open(run).path
    with interruptible(lambda: "ended"), serving(folder, host, port) as url:
        if not is_loopback(host):
            say(f"--host {host}: whoever reaches this machine there can read the run; there is no password")
        say(f"{folder} at {url} (Ctrl-C ends it)")
        while True:
            time.sleep(0.2)  # in turns, for polars' handler of Ctrl-C lets a longer wait go on


@app.command(rich_help_panel=LOOK, epilog=ending("octoscale docs guides/validate", "index"))
def docs(
    page: Annotated[str, typer.Argument(metavar="[PAGE]", help="As the helps name it: guides/keep.")] = "index",
    print_only: Annotated[bool, typer.Option("--print", help="Print where the page is, and open nothing.")] = False,
) -> None:
    """Open the documents in a browser, from a copy that needs no network."""
    import webbrowser

    from octoscale.system import documents

    path = documents.page(page)
    if print_only or not webbrowser.open(path.as_uri()):
        typer.echo(path)
