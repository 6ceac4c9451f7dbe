"""Results on stdout, everything else on stderr, and what happens when stdout cannot be written."""

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
    """Standard output cannot be written."""


def print_result(text: str) -> None:
    """Write a result, to stdout."""
    with _translated():
        print(text)  # noqa: T201


def print_json(value: object) -> None:
    """Write a result as JSON, to stdout: indented for a terminal, in one line for a program."""
    # Where stdout is not UTF-8, replace_unencodable() would write escapes that are not JSON.
    ascii_only = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "") != "utf8"
    terminal = sys.stdout is not None and sys.stdout.isatty()  # None: closed before the program began
    print_result(json.dumps(value, ensure_ascii=ascii_only, indent=2 if terminal else None))


def print_note(text: str) -> None:
    """Write something that the user should know, to stderr."""
    print(text, file=sys.stderr)  # noqa: T201


def shown(text: str) -> str:
    """A name or a label that is safe on a terminal: control characters are escaped, as in ``a\\x1b.jpg``."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def replace_unencodable() -> None:
    """From here on, stdout gets an escape for each character that its encoding lacks, instead of an error.

    In the C locale, bytes of names that are not ASCII go out as they came in.
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
    """Flush stdout at the end of the block, where an error becomes a sentence; the interpreter would print its own."""
    try:
        yield
    finally:
        try:
            with _translated():
                if sys.stdout is not None:
                    sys.stdout.flush()
        except (BrokenPipeError, OutputError):
            # The unwritten rest is still buffered; the interpreter would try to write it at exit, and complain.
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
