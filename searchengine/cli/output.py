"""Prints results to stdout and everything else to stderr."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator

from searchengine.errors import SearchEngineError


class OutputError(SearchEngineError):
    """Standard output cannot be written to."""


def print_result(text: str) -> None:
    """Print a result to stdout."""
    with _translated():
        print(text)  # noqa: T201


def print_json(value: object) -> None:
    """Print a result to stdout as JSON, indented on a terminal and otherwise on one line."""
    # If stdout is not UTF-8, the escapes of replace_unencodable() would not be valid JSON.
    ascii_only = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "") != "utf8"
    terminal = sys.stdout is not None and sys.stdout.isatty()  # None: closed before the program began
    print_result(json.dumps(value, ensure_ascii=ascii_only, indent=2 if terminal else None))


def print_answer(value: object, text: str, *, as_json: bool) -> None:
    """Print a result to stdout, as JSON or as text."""
    if as_json:
        print_json(value)
    else:
        print_result(text)


def print_note(text: str) -> None:
    """Print a note for the user to stderr."""
    print(text, file=sys.stderr)  # noqa: T201


def shown(text: str) -> str:
    """Return a name or label that is safe on a terminal, with control characters escaped as in ``a\\x1b.jpg``."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def replace_unencodable() -> None:
    """Make stdout escape each character that its encoding lacks, instead of raising an error.

    In the C locale, the bytes of names that are not ASCII are written unchanged.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        codecs.register_error("bytes or escapes", _as_bytes_or_escapes)
        sys.stdout.reconfigure(errors="backslashreplace" if sys.stdout.errors == "strict" else "bytes or escapes")


def _as_bytes_or_escapes(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    is_byte = "\udc80" <= character <= "\udcff"  # see os.fsdecode
    return character.encode("ascii", "surrogateescape" if is_byte else "backslashreplace"), error.start + 1


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """Flush stdout at the end of the block, so that an error is reported here and not by the interpreter at exit."""
    try:
        yield
    finally:
        try:
            with _translated():
                if sys.stdout is not None:
                    sys.stdout.flush()
        except (BrokenPipeError, OutputError):
            # The interpreter would try to write the rest of the buffer at exit, and report the error again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"The output cannot be written: {error.strerror or error}.") from error
