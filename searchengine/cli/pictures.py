"""The image files that a person names: read whole, and named in every error."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from searchengine.errors import ImageError


def read_picture(file: Path, *, by_id: str = "") -> bytes:
    """The bytes of a file; ImageError. A pipe is refused, because nobody may ever write to it.

    ``by_id`` is the flag that takes an id, for those who gave an id without it.
    """
    name = os.fspath(file)
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise ImageError(f"{name} is not a file. Name an image file.")
        return file.read_bytes()
    except FileNotFoundError as error:
        if by_id and name.isascii() and name.isdigit():
            raise ImageError(f"There is no file {name}. For image {name} of the index: {by_id} {name}") from error
        raise ImageError(f"{name} cannot be read: {error.strerror}.") from error
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        raise ImageError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


@contextlib.contextmanager
def named(file: Path) -> Iterator[None]:
    """An ImageError that comes from within says which file it is about."""
    try:
        yield
    except ImageError as error:
        if os.fspath(file) in str(error):
            raise
        raise type(error)(f"{file}: {error}") from error
