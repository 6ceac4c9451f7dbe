"""The entry points: load the command that is called, and turn errors into a message and an exit status.

Shell completion for bash (replace ``bash`` by ``zsh`` or ``fish`` for these)::

    eval "$(_SEARCHENGINE_COMPLETE=bash_source searchengine)"
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from searchengine import __version__
from searchengine.cli.command import CONTEXT, HelpMixin
from searchengine.cli.output import flushed, print_result, replace_unencodable
from searchengine.errors import SearchEngineError, file_error, missing_package
from searchengine.processors import limit_library_threads

_EPILOG = """\
First steps:
  searchengine index ~/Pictures --model efficientnet-lite0   no download; without --model, VGG16 fc2 is used
  searchengine serve                                         then open http://127.0.0.1:8000
  searchengine search holiday.jpg -k 5
  searchengine info

Run `searchengine COMMAND --help` for the options of a command. The index folder is ./index unless you set --index-dir
or SEARCHENGINE_INDEX_DIR.
"""
_COMPLETE = "_SEARCHENGINE_COMPLETE"
VERBS = {  # command: its module, and the function in it
    "index": ("index", "index"),
    "search": ("search", "search"),
    "words": ("index", "words"),
    "tags": ("info", "tags"),
    "neighbours": ("analyse", "neighbours"),
    "evaluate": ("analyse", "evaluate"),
    "classify": ("classify", "classify"),
    "recommend": ("search", "recommend"),
    "train": ("train", "train"),
    "map": ("analyse", "map_"),
    "cluster": ("analyse", "cluster"),
    "import": ("exchange", "import_"),
    "export": ("exchange", "export"),
    "download": ("exchange", "download"),
    "serve": ("serve", "serve"),
    "prepare": ("serve", "prepare"),
    "info": ("info", "info"),
    "ann": ("index", "ann"),
    "verify": ("info", "verify"),
    "config": ("info", "config"),
    "models": ("info", "models"),
    "cache": ("info", "cache"),
    "demo": ("serve", "demo"),
}
_RESUMABLE = ("index", "download", "neighbours", "train")  # run again, these continue where they stopped


class Verbs(HelpMixin, click.Group):
    """The group of all commands, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which a user needs them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the command of this name."""
        return load_verb(cmd_name) if cmd_name in VERBS else None


def load_verb(name: str) -> click.Command:
    """Import the module of a command, and return the command."""
    module, attribute = VERBS[name]
    command: click.Command = getattr(import_module(f"searchengine.cli.{module}"), attribute)
    return command


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        print_result(f"searchengine {__version__}")
        ctx.exit()


_searchengine = Verbs(
    "searchengine",
    help="A visual search engine for folders of images.",
    epilog=_EPILOG,
    context_settings=CONTEXT,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Show the version and exit.",
        )
    ],
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0 success, 1 failure, 2 wrong usage, 130 interrupted."""
    if instruction := os.environ.get(_COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(_searchengine, {}, "searchengine", _COMPLETE, instruction)
    return _run("searchengine", arguments)


def offline_index(arguments: Sequence[str] | None = None) -> int:
    """Run ``searchengine index`` as ``python offline_index.py``."""
    return _run("offline_index.py", arguments)


def _run(program: str, arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    verb = "index" if program != "searchengine" else words[0] if words else ""
    try:
        replace_unencodable()
        limit_library_threads()
        with flushed():
            command = _searchengine if program == "searchengine" else load_verb("index")
            try:
                with command.make_context(program, words) as context:
                    return int(command.invoke(context) or 0)
            except click.exceptions.Exit as done:
                return done.exit_code
            except click.ClickException as refusal:
                refusal.show()
                return refusal.exit_code
    except SearchEngineError as error:
        return _fail(program, str(error))
    except ModuleNotFoundError as error:
        return _fail(program, missing_package(error))
    except KeyboardInterrupt:
        more = " Run the same command again to resume." if verb in _RESUMABLE else ""
        _fail(program, f"Stopped.{more}")
        return 130
    except BrokenPipeError:  # the reader has closed the pipe, and needs no message
        return 1
    except OSError as error:
        if error.filename is None:  # not about a file, so not a problem that the user can solve
            raise
        return _fail(program, file_error(error))


def _fail(program: str, message: str) -> int:
    print(f"{program}: {message}", file=sys.stderr)  # noqa: T201
    return 1
