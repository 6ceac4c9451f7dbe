"""``searchengine VERB ...``: finds the verb, runs it, and turns our errors into a sentence and an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from searchengine import __version__
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
from searchengine.errors import SearchEngineError

_EPILOG = """\
a first day:
  searchengine index ~/Pictures --model compact     no download; VGG16 fc2 without --model
  searchengine serve                                then open http://127.0.0.1:8000
  searchengine search holiday.jpg -k 5
  searchengine info

Every verb has its own --help. The index folder is ./index unless --index-dir or SEARCHENGINE_INDEX_DIR says otherwise.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0 done, 1 it could not be done, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="searchengine",
        description="A visual search engine for folders of images.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"searchengine {__version__}")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
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
    return run(parser, arguments)


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse, act, and say in one line what went wrong."""
    options = parser.parse_args(arguments)
    try:
        return int(options.act(options))
    except SearchEngineError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped. What was done is kept.", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:  # the reader of our output has gone; Python would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
