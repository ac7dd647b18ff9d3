"""The options of a command are the fields of its settings: names, defaults and help stand there, once.

    @app.command()
    @takes(Validation)
    def validate(words: Words[Validation], out: Out = None) -> None:
        settings = words.settings()

`takes` gives the function the signature that typer reads: a positional argument or an option for each field, the
settings' own before those that they inherit, then the command's own parameters. What was typed is told apart from what
is a default, so that a preset can come between, and so that an option that nothing would read is an error.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, get_origin, get_type_hints

import typer

from octoscale.models.sizes import PRETRAINED, checkpoint_of
from octoscale.system.settings import check_typed, help_of

S = TypeVar("S")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Out = Annotated[Path | None, typer.Option(help="The run's folder. A new one below runs/, if not given.")]
#: A checkpoint's folder, by its place or by the option that runs have; `cli.output.new_folder` takes either.
Folder = Annotated[Path | None, typer.Argument(metavar="OUT", help="The new checkpoint's folder.")]
NamedFolder = Annotated[Path | None, typer.Option("--out", help="The same, by name.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there, if octoscale wrote all of it.")]
Pretrained = Annotated[bool, typer.Option("--pretrained", help=PRETRAINED)]
Watch = Annotated[bool, typer.Option("--watch", help="Serve a page of the run to this machine's browser meanwhile.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what a stopped command left, if there is any.")]


@dataclass(frozen=True)
class Words(Generic[S]):
    """What the command line says of some settings, before they are checked.

    values: each field's value, or its default. typed: the options that stand on the command line.
    """

    kind: type[S]
    values: dict[str, Any]
    typed: frozenset[str]

    def settings(self, **changed: Any) -> S:
        """The settings, with what comes between, a preset say. UserError for what they refuse or would not read."""
        settings = self.kind(**{**self.values, **changed})
        check_typed(settings, self.typed)
        return settings

    def of(self, pretrained: bool) -> "Words[S]":
        """The same; if `pretrained`, of the checkpoint that the model's name stands for. UserError if it has none."""
        if not pretrained:
            return self
        return replace(self, values={**self.values, "model": checkpoint_of(self.values["model"])})


def takes(kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose first parameter is `Words[kind]`, as typer wants it: with a parameter for each field."""
    shown = parameters_of(kind)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        own = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own]

        @wraps(command)
        def read(context: typer.Context, **given: Any) -> None:
            values = {name: _value(kind, name, given.pop(name)) for name in shown}
            command(Words(kind, values, _typed(context)), **given)

        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [context, *shown.values(), *own]
        read.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        read.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return read

    return decorate


def parameters_of(kind: type[Any]) -> dict[str, inspect.Parameter]:
    """A parameter, annotated for typer, of each field of a settings dataclass; its own fields before the inherited."""
    hints, stated = get_type_hints(kind), {field.name: field for field in fields(kind)}
    bases = [base for base in kind.__mro__ if is_dataclass(base)]
    names = dict.fromkeys(name for base in bases for name in base.__annotations__ if name in stated)
    return {name: _parameter(stated[name], hints[name]) for name in names}


def _parameter(stated: "Field[Any]", hint: Any) -> inspect.Parameter:
    """How typer sees a field."""
    help = help_of(stated)
    default = inspect.Parameter.empty if stated.default is MISSING else stated.default
    metavar = None
    if _is_list(hint):
        hint, default, metavar = list[str] | None, None, "<str>"
    if stated.metadata.get("positional"):
        shown: Any = typer.Argument(metavar=stated.name.upper(), help=help)
    else:
        option = stated.metadata.get("option") or f"--{stated.name.replace('_', '-')}"
        names = [option] * (default is not True)  # typer has the words to turn one off
        shown = typer.Option(*names, metavar=metavar, help=help)
    return inspect.Parameter(
        stated.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, shown]
    )


def _is_list(hint: Any) -> bool:
    """Whether a field holds several texts: an option that may be repeated."""
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Iterable)


def _value(kind: type[Any], name: str, given: Any) -> Any:
    """None stands for an option that may be repeated, and was not given."""
    return () if given is None and kind.__dataclass_fields__[name].default == () else given


def _typed(context: typer.Context) -> frozenset[str]:
    """The options that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name != "DEFAULT")
