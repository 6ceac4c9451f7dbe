"""How verbs are declared: a Click command with its sections and examples, and the kinds of options and their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from searchengine.address import AddressError, is_milvus, parse_address
from searchengine.cli.output import print_result

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
_EMPTY = "is empty. Is a variable of the shell not set?"

# -- types ------------------------------------------------------------------------------------------------------------


class Text(click.ParamType[str]):
    """Any text but the empty string, which an unset variable of the shell leaves behind."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse the empty string."""
        return str(value) if value else self.fail(_EMPTY, param, ctx)


class FilePath(click.Path):
    """A path, there or not; the empty string would be the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse the empty string."""
        return super().convert(value, param, ctx) if value != "" else self.fail(_EMPTY, param, ctx)


class IndexPlace(FilePath):
    """A folder, there or not, or the address of a collection in Milvus."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is no address; the message shows no secret."""
        try:
            return parse_address(value) if is_milvus(value) else super().convert(value, param, ctx)
        except AddressError as error:
            self.fail(str(error), param, ctx)


TEXT, PATH, INDEX_PLACE = Text(), FilePath(), IndexPlace()
COUNT, ID, FRACTION = click.IntRange(min=1), click.IntRange(min=0), click.FloatRange(min=0)

# -- verbs ------------------------------------------------------------------------------------------------------------


class _Option(click.Option):
    """An option with its section in --help; ``greedy`` ones take all values that follow, up to the next option."""

    section = "Options"

    def __init__(self, *names: Any, greedy: bool = False, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.greedy = greedy


class HelpMixin:
    """Writes --help as a result, so that errors of standard output are ours; keeps the lines of examples."""

    epilog: str | None

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Click's option, with our output."""
        option: click.Option | None = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.callback = _print_help
        return option

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples as they stand."""
        if self.epilog:
            formatter.write(f"\n{self.epilog.strip()}\n")


def _print_help(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        print_result(ctx.get_help())
        ctx.exit()


class Verb(HelpMixin, click.Command):
    """A command whose options stand in sections, and some of which take several values in a row."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """``--classes Cat Dog`` is read as ``--classes Cat --classes Dog``."""
        greedy = {name for option in self.params if getattr(option, "greedy", False) for name in option.opts}
        return super().parse_args(ctx, _spread(args, greedy))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each section with its options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _spread(arguments: Sequence[str], greedy: set[str]) -> list[str]:
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


def verb(name: str, summary: str, examples: str = "") -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a function a verb: its docstring is the description, its result the exit status; None is 0."""
    return click.command(name, cls=Verb, short_help=summary, epilog=examples, context_settings=_CONTEXT)


# -- options ----------------------------------------------------------------------------------------------------------


def option(
    spelling: str,
    help: str | None = None,  # noqa: A002
    type: Any = TEXT,  # noqa: A002
    *,
    default: Any = None,
    **settings: Any,
) -> Decorator[Any]:
    """An option with one value, spelt as in --help: "--out DIR". It is refused when it is given twice.

    ``name`` is that of the function's parameter, where it differs. "-k K" is also "--k K".
    """
    defaults = () if default is None else (default,)
    return options(spelling.replace("-k ", "-k --k "), help, type, default=defaults, callback=_once, **settings)


def _once(ctx: click.Context, param: click.Parameter, values: tuple[Any, ...]) -> Any:
    if len(values) > 1:
        raise click.BadParameter("given twice, and only one counts", ctx, param)
    return values[0] if values else None


def options(spelling: str, help: str | None = None, type: Any = TEXT, **settings: Any) -> Decorator[Any]:  # noqa: A002
    """An option that may be repeated; with ``greedy=True`` it also takes several values in a row."""
    return _declared(spelling, help=help, type=type, multiple=True, **settings)


def flag(spelling: str, help: str, **settings: Any) -> Decorator[Any]:  # noqa: A002
    """An option without a value."""
    return _declared(spelling, help=help, is_flag=True, **settings)


def _declared(spelling: str, *, name: str | None = None, **settings: Any) -> Decorator[Any]:
    words = spelling.split()
    names = [word for word in words if word.startswith("-")]
    metavar = words[-1] if len(words) > len(names) else None
    return click.option(*names, *([name] if name else []), cls=_Option, metavar=metavar, **settings)


def section(title: str, *declared: Decorator[Any]) -> Decorator[Any]:
    """Options that stand together in --help, under a title."""

    def decorate(function: Function) -> Function:
        before = len(getattr(function, "__click_params__", ()))
        for declare in reversed(declared):
            function = declare(function)
        for parameter in function.__click_params__[before:]:  # type: ignore[attr-defined]
            parameter.section = title
        return function

    return decorate


def choice(*values: str) -> click.Choice[str]:
    """One of some words."""
    return click.Choice(values)


json_flag = flag("--json", "print JSON, for machines", name="as_json")
