"""What goes to stdout and to stderr, and what is done where that cannot be."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator

from searchengine.errors import SearchEngineError


class OutputError(SearchEngineError):
    """Standard output does not take what is written to it."""


def print_result(text: str) -> None:
    """A result goes to stdout; all else goes to stderr."""
    with _told():
        print(text)  # noqa: T201


def print_json(value: object) -> None:
    """A result as JSON, on stdout."""
    # Elsewhere than in UTF-8 a character that stdout cannot take would be replaced by what is no JSON.
    plain = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "") != "utf8"
    watched = sys.stdout is not None and sys.stdout.isatty()  # None where it was closed before we began
    print_result(json.dumps(value, ensure_ascii=plain, indent=2 if watched else None))


def print_note(text: str) -> None:
    """What a person should know, on stderr."""
    print(text, file=sys.stderr)  # noqa: T201


def shown(text: str) -> str:
    """A name or a label as a terminal may have it: control characters escaped, as in ``a\\x1b.jpg``."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def tolerate() -> None:
    """From here on, a character that stdout cannot write is written as an escape: a name is no reason to fail."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """At the end of the block all output is written, so that what is said of it is ours and not the interpreter's."""
    try:
        yield
    finally:
        try:
            with _told():
                if sys.stdout is not None:
                    sys.stdout.flush()
        except (BrokenPipeError, OutputError):
            # What could not be written is still held; the interpreter would try once more at exit, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"The output cannot be written: {error.strerror or error}.") from error
