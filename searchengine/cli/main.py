"""``searchengine VERB ...``: finds the verb, runs it, and turns our errors into a sentence and an exit status.

The verbs are imported where Ctrl-C is already looked after.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from searchengine import __version__
from searchengine.errors import SearchEngineError, missing_package

_EPILOG = """\
a first day:
  searchengine index ~/Pictures --model compact     no download; VGG16 fc2 without --model
  searchengine serve                                then open http://127.0.0.1:8000
  searchengine search holiday.jpg -k 5
  searchengine info

Every verb has its own --help. The index folder is ./index unless --index-dir or SEARCHENGINE_INDEX_DIR says otherwise.
"""
_GO_ON = ("index", "download", "neighbours", "train")  # the verbs that, given again, use what was done before


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0 done, 1 it could not be done, 2 wrong usage, 130 stopped."""
    return run("searchengine", _parser, arguments)


def _parser() -> argparse.ArgumentParser:
    from searchengine.cli import (
        classifying,
        demo,
        downloading,
        evaluating,
        exchanging,
        indexing,
        inspecting,
        mapping,
        modelling,
        neighbouring,
        recommending,
        searching,
        serving,
        training,
    )
    from searchengine.cli.parsing import VerbParser

    parser = argparse.ArgumentParser(
        prog="searchengine",
        description="A visual search engine for folders of images.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"searchengine {__version__}")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True, parser_class=VerbParser)
    for module in (
        indexing,
        searching,
        neighbouring,
        evaluating,
        classifying,
        recommending,
        training,
        mapping,
        exchanging,
        downloading,
        serving,
        inspecting,
        modelling,
        demo,
    ):
        module.add_verbs(verbs)
    return parser


def run(program: str, make_parser: Callable[[], argparse.ArgumentParser], arguments: Sequence[str] | None) -> int:
    """Parse, act, and say in one line what went wrong."""
    verb = ""
    try:
        from searchengine.cli.output import flushed, tolerate
        from searchengine.cli.running import check_running

        tolerate()
        with flushed():
            options = make_parser().parse_args(arguments)
            verb = options.verb
            check_running(options)
            return int(options.act(options))
    except SearchEngineError as error:
        print(f"{program}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except ModuleNotFoundError as error:
        print(f"{program}: {missing_package(error)}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        more = " The same command goes on from what is there." if verb in _GO_ON else ""
        print(f"{program}: Stopped.{more}", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:  # the reader of our output has gone, and knows
        return 1
