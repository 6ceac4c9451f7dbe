"""Commands ("verbs") and their options, declared on top of Click as ``--help`` shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from searchengine.address import AddressError, is_milvus, parse_address
from searchengine.cli.output import print_result

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
_EMPTY = "must not be empty. Is a shell variable unset?"

# -- types ------------------------------------------------------------------------------------------------------------


class Text(click.ParamType[str]):
    """Any text except the empty string, which an unset shell variable leaves behind."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse the empty string."""
        return str(value) if value else self.fail(_EMPTY, param, ctx)


class FilePath(click.Path):
    """A path, whether or not it exists; the empty string would mean the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse the empty string."""
        return super().convert(value, param, ctx) if value != "" else self.fail(_EMPTY, param, ctx)


class IndexPlace(FilePath):
    """A folder, whether or not it exists, or the address of a Milvus collection."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an invalid address; the message shows no secret."""
        try:
            return parse_address(value) if is_milvus(value) else super().convert(value, param, ctx)
        except AddressError as error:
            self.fail(str(error), param, ctx)


TEXT, PATH, INDEX_PLACE = Text(), FilePath(), IndexPlace()
COUNT, ID, NUMBER = click.IntRange(min=1), click.IntRange(min=0), click.FloatRange(min=0)

# -- verbs ------------------------------------------------------------------------------------------------------------


class _Option(click.Option):
    """An option with its section in --help; a ``greedy`` one takes all values up to the next option."""

    section = "Options"

    def __init__(self, *names: Any, greedy: bool = False, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.greedy = greedy


class HelpMixin:
    """Prints --help like any result, so that output errors are handled, and keeps the line breaks of examples."""

    epilog: str | None

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return Click's option, printing through ``print_result``."""
        option: click.Option | None = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.callback = _print_help
        return option

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples without rewrapping them."""
        if self.epilog:
            formatter.write(f"\n{self.epilog.strip()}\n")


def _print_help(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        print_result(ctx.get_help())
        ctx.exit()


class Verb(HelpMixin, click.Command):
    """A command with sections of options, some of which take several values in a row."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read ``--classes Cat Dog`` as ``--classes Cat --classes Dog``."""
        greedy = {name for option in self.params if getattr(option, "greedy", False) for name in option.opts}
        return super().parse_args(ctx, _spread(args, greedy))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section with its options, the general one first."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _spread(arguments: Sequence[str], greedy: set[str]) -> list[str]:
    """Repeat a greedy option before each further value: --classes Cat Dog becomes --classes Cat --classes Dog."""
    spread: list[str] = []
    option, values = "", 0
    for i, argument in enumerate(arguments):
        if argument == "--":
            return [*spread, *arguments[i:]]
        if argument.startswith("-") and argument != "-":
            option, values = argument if argument in greedy else "", 0
        elif option:
            values += 1
            if values > 1:
                spread.append(option)
        spread.append(argument)
    return spread


def verb(name: str, examples: str = "") -> Callable[[Callable[..., int | None]], click.Command]:
    """Turn a function into a command.

    Its docstring is the help text, whose first sentence also stands in the list of commands. Its return value is the
    exit status; None means 0.
    """
    return click.command(name, cls=Verb, epilog=examples, context_settings=CONTEXT)


# -- options ----------------------------------------------------------------------------------------------------------


def option(
    spelling: str,
    help: str | None = None,  # noqa: A002
    type: Any = TEXT,  # noqa: A002
    *,
    default: Any = None,
    **settings: Any,
) -> Decorator[Any]:
    """Declare an option with one value, spelled as in --help: "--out DIR". Giving it twice is an error.

    Pass ``name`` if the parameter of the function has another name. "-k K" also declares "--k K".
    """
    defaults = () if default is None else (default,)
    return options(spelling.replace("-k ", "-k --k "), help, type, default=defaults, callback=_only_value, **settings)


def _only_value(ctx: click.Context, param: click.Parameter, values: tuple[Any, ...]) -> Any:
    if len(values) > 1:
        raise click.BadParameter("given more than once, but takes one value", ctx, param)
    return values[0] if values else None


def options(spelling: str, help: str | None = None, type: Any = TEXT, **settings: Any) -> Decorator[Any]:  # noqa: A002
    """Declare an option that may be repeated; with ``greedy=True`` it also takes several values in a row."""
    return _declare(spelling, help=help, type=type, multiple=True, **settings)


def flag(spelling: str, help: str, **settings: Any) -> Decorator[Any]:  # noqa: A002
    """Declare an option without a value."""
    return _declare(spelling, help=help, is_flag=True, **settings)


def _declare(spelling: str, *, name: str | None = None, **settings: Any) -> Decorator[Any]:
    words = spelling.split()
    names = [word for word in words if word.startswith("-")]
    metavar = words[-1] if len(words) > len(names) else None
    return click.option(*names, *([name] if name else []), cls=_Option, metavar=metavar, **settings)


def section(title: str, *declared: Decorator[Any]) -> Decorator[Any]:
    """Put options under a title of their own in --help."""

    def decorate(function: Function) -> Function:
        before = len(getattr(function, "__click_params__", ()))
        for declare in reversed(declared):
            function = declare(function)
        for parameter in function.__click_params__[before:]:  # type: ignore[attr-defined]
            parameter.section = title
        return function

    return decorate


def choice(*values: str) -> click.Choice[str]:
    """Return the type of an option that takes one of these words."""
    return click.Choice(values)


json_flag = flag("--json", "Print JSON, for use by other programs.", name="as_json")
