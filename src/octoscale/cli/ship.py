"""Commands that hand a model on: quantize writes its checkpoint in FP8, generate and chat write with it."""

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from octoscale.checkpoints.settings import Quantization
from octoscale.cli.app import SHIP, app, ending
from octoscale.cli.options import Folder, Json, NamedFolder, Overwrite, Pretrained, Resume, Words, takes
from octoscale.cli.output import check_alone, interruptible, new_folder, show
from octoscale.inference.settings import Chat, Generation, Writing
from octoscale.system.heap import keep_freed_memory
from octoscale.system.printable import printable
from octoscale.system.ranks import is_first

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from octoscale.inference.generate import Writer


@app.command(
    rich_help_panel=SHIP,
    epilog=ending("octoscale quantize MODEL OUT --scaling amax --activations static", "guides/export"),
)
@takes(Quantization)
def quantize(
    words: Words[Quantization],
    pretrained: Pretrained = False,
    out: Folder = None,
    named_out: NamedFolder = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a model's checkpoint with FP8 weights, tensor by tensor, in a layout that others load."""
    from octoscale.models.export import run_quantization
    from octoscale.report import terminal

    settings, folder = words.of(pretrained).settings(), new_folder(out, named_out)
    keep_freed_memory()
    with (
        interruptible(lambda: "interrupted; --resume goes on"),
        terminal.bytes_bar(terminal.PlainConsole(stderr=True)) as progress,
    ):
        done = run_quantization(settings, folder, resume=resume, overwrite=overwrite, progress=progress)
    show(done if as_json else terminal.facts_table(done))


@app.command(
    rich_help_panel=SHIP,
    epilog=ending('octoscale generate OUT --prompt "Once upon a time"', "INFERENCE"),
)
@takes(Generation)
def generate(words: Words[Generation], as_json: Json = False) -> None:
    """Go on with a text, in FP8: each token is printed when it comes."""
    from octoscale.distributed.mesh import explained
    from octoscale.models.meeting import meet

    settings = words.settings()
    with explained(), interruptible(lambda: "\ninterrupted"):
        ranks = meet(settings.model, parallel=settings.parallel, words=asdict(settings))
        writer = _writer(settings, ranks)
        ids = writer.encode(settings.prompt)
        writer.check_room(ids, settings)
        if is_first():  # it speaks for all
            sys.stderr.write(f"{printable(writer.describe)}\n")
        start = time.perf_counter()
        new = writer.write(ids, settings, _nothing if as_json or not is_first() else _emit)
    seconds = time.perf_counter() - start
    if not is_first():
        return
    if as_json:
        facts = {"model": settings.model, "scaling": writer.scaling, "prompt": settings.prompt, "text": new.text}
        done = {"new_tokens": len(new.ids), "seconds": seconds, "fusion": str(writer.fusion), "pages": writer.pages}
        show(facts | done)
        return
    sys.stdout.write("\n")
    sys.stderr.write(
        f"{len(new.ids)} tokens, {len(new.ids) / seconds:.1f} a second, the prompt's {len(ids)} included\n"
    )


@app.command(rich_help_panel=SHIP, epilog=ending("octoscale chat OUT", "INFERENCE"))
@takes(Chat)
def chat(words: Words[Chat]) -> None:
    """Talk with a model, in FP8: a line is a turn; an empty line or Ctrl-D ends."""
    check_alone("chat")
    settings = words.settings()
    writer = _writer(settings)
    turns: list[dict[str, str]] = []
    writer.encode_chat([{"role": "user", "content": "?"}])
    sys.stderr.write(f"{printable(writer.describe)}\n")
    with interruptible(lambda: "\ninterrupted"):
        while line := _ask():
            turns.append({"role": "user", "content": line})
            reply = writer.write(writer.encode_chat(turns), settings, _emit)
            turns.append({"role": "assistant", "content": reply.text})
            sys.stdout.write("\n")


def _writer(settings: Writing, ranks: "ProcessGroup | None" = None) -> "Writer":
    from octoscale.inference.generate import Writer

    return Writer(
        settings.model,
        settings.scaling,
        settings.activations,
        fp8_head=settings.fp8_head,
        huge_pages=settings.huge_pages,
        ranks=ranks,
    )


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
