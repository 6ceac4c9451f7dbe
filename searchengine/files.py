"""Files: replacing in one step, flushing, locks, paths as text, and safe JSON and CSV."""

from __future__ import annotations

import csv
import errno
import glob
import itertools
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO
from urllib.parse import unquote_to_bytes, urlsplit

from searchengine.errors import IndexingError

_COUNTER = itertools.count(1)  # next() is atomic, so two threads never share a temporary file


# -- replacing a file in one step -----------------------------------------------------------------------------------


@contextmanager
def replacing(file: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary file to write to, and rename it to ``file`` if the block ends without an error.

    A process that is killed at any moment leaves either the old file or the new one, never a partial file.

    Args:
        file: the file to replace; its folder is created if it is missing.
        durable: first delete temporary files of killed processes, and finally wait until content and name are on the
            disk, so that a power cut cannot leave an empty file. For a cache of many small files, this is too slow.

    Raises:
        OSError: the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if durable:
        _delete_leftovers(file)
    part = file.with_name(f".{file.name}.{next(_COUNTER)}.{os.getpid()}.part")
    try:
        yield part
        if durable:
            flush(part)
        part.replace(file)
        if durable:
            flush_folder(file.parent)
    finally:
        with suppress(OSError):
            part.unlink()


def replace_bytes(file: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace a file by one with this content; see ``replacing``."""
    with replacing(file, durable=durable) as part:
        part.write_bytes(data)


def replace_text(file: Path, text: str) -> None:
    """Replace a file by one with this text in UTF-8; see ``replacing``."""
    replace_bytes(file, text.encode("utf-8"))


def _delete_leftovers(file: Path) -> None:
    for part in file.parent.glob(f".{glob.escape(file.name)}.*.part"):
        process = part.name.split(".")[-2]
        if process.isdigit() and not _is_running(int(process)):
            part.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":
        return True  # unknown: os.kill would end the process
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it belongs to another user
    return True


# -- paths as text ----------------------------------------------------------------------------------------------------
#
# Python decodes file names by the locale, which may differ between runs, and represents invalid bytes as surrogates,
# which cannot be stored.


def path_to_text(file: Path) -> str:
    """Return a path as text that can be stored in any locale: a ``file:`` address if it is not valid UTF-8."""
    try:
        return os.fsencode(file).decode("utf-8")
    except UnicodeDecodeError:
        return file.absolute().as_uri()


def path_from_text(text: str) -> Path:
    """Return the path of a text from ``path_to_text``, or of one that a person typed."""
    if text.startswith("file:///"):
        return Path(os.fsdecode(unquote_to_bytes(urlsplit(text).path)))
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return Path(os.fsdecode(text.encode("utf-8", "surrogateescape")))
    return Path(text)


# -- reading photos ---------------------------------------------------------------------------------------------------

MAX_PHOTO_BYTES = 512 * 2**20
_OPEN_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"))


def open_regular(file: str | bytes | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; OSError if it is anything else.

    It never blocks. Opening a named pipe normally waits for a writer, and a device may never end; a photo can have been
    replaced by one since its folder was listed.
    """
    descriptor = os.open(file, _OPEN_FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(file))
    return os.fdopen(descriptor, "rb")


def read_regular(file: str | bytes | os.PathLike[str]) -> bytes:
    """Read a photo; OSError if it is not a regular file, or larger than ``MAX_PHOTO_BYTES``."""
    with open_regular(file) as opened:
        if os.fstat(opened.fileno()).st_size > MAX_PHOTO_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), os.fspath(file))
        return opened.read()


# -- output files -----------------------------------------------------------------------------------------------------


@contextmanager
def output_file(file: Path) -> Iterator[Path]:
    """Replace a file that the user named, as ``replacing`` does; IndexingError if it cannot be written."""
    with output_errors(file):
        if file.is_dir():
            raise IndexingError(f"{file} is a folder. Name a file.")
        check_output_folder(file.parent)
        with replacing(file) as part:
            yield part


@contextmanager
def output_errors(place: Path) -> Iterator[None]:
    """Turn an OSError into an IndexingError that names the file or folder."""
    try:
        yield
    except OSError as error:
        raise IndexingError(f"{place} cannot be written: {error.strerror or error}.") from error


def check_output_folder(folder: Path) -> None:
    """Raise IndexingError if the folder, or one above it, is a file."""
    for place in (folder, *folder.parents):
        if os.path.lexists(place) and not place.is_dir():
            raise IndexingError(f"{place} is a file, not a folder. Name another folder.")


def file_size(size: float) -> str:
    """Format a number of bytes in the largest unit in which it is at least one: "553 MB", "1.3 GB"."""
    units = ["GB", "MB", "kB", "bytes"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop()
    return f"{size:.0f} {units[-1]}" if size >= 9.95 or units[-1] == "bytes" else f"{size:.1f} {units[-1]}"


def bytes_of(files: Iterable[Path]) -> int:
    """Return the total size of files; files that are missing or not accessible are ignored."""
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.stat().st_size
    return total


# -- JSON -------------------------------------------------------------------------------------------------------------


def parse_json(text: str | bytes) -> Any:
    """Parse JSON from an untrusted source; ValueError if it is not valid.

    ``json.loads`` raises RecursionError for lists or objects that are nested thousands deep.
    """
    try:
        return json.loads(text)  # noqa: TID251
    except RecursionError as error:
        raise ValueError("it is JSON that is nested too deeply") from error


# -- CSV --------------------------------------------------------------------------------------------------------------

# The beginning of a cell. Spreadsheets that split rows at semicolons, tabs or bars treat the quotes around a cell
# between commas as text, so a cell can begin after these characters too.
_BEGIN = r"(?:^|(?<=[;|\t\r\n]))"
_FORMULA = r"(?=[ \xa0\"']*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])"  # the last four are full-width
_UNGUARDED, _GUARDED = re.compile(_BEGIN + _FORMULA), re.compile(_BEGIN + "'" + _FORMULA)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def csv_writer(opened: TextIO) -> Callable[[Iterable[object]], None]:
    """Return a function that writes a row to a CSV file that is safe to open in a spreadsheet.

    Text that a spreadsheet would run as a formula gets an apostrophe in front. Such text begins with =, +, -, @, a tab
    or a carriage return, possibly after blanks and quotes, at the beginning of a cell or after a semicolon, tab, bar or
    line break within it. ``unguarded`` removes the apostrophes again. Numbers are written unchanged.
    """
    writer = csv.writer(opened)

    def write(row: Iterable[object]) -> None:
        writer.writerow([_guarded(cell) if isinstance(cell, str) else cell for cell in row])

    return write


def _guarded(cell: str) -> str:
    return cell if _NUMBER.fullmatch(cell) else _UNGUARDED.sub("'", cell)


def unguarded(cell: str) -> str:
    """Return a cell as it was before ``csv_writer`` added apostrophes."""
    return _GUARDED.sub("", cell)


# -- flushing ---------------------------------------------------------------------------------------------------------


def flush(file: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with file.open("r+b" if os.name == "nt" else "rb") as opened:
        os.fsync(opened.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; flushing a file does not always include its name."""
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows cannot do this
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems cannot do this
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


# -- locks ------------------------------------------------------------------------------------------------------------


@contextmanager
def locked(file: Path, *, patience: float = 0, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock between processes; the kernel releases it if this process dies.

    Args:
        file: the lock file, created now and deleted when the lock is released.
        patience: how many seconds to wait for another process to release the lock.
        on_wait: called once if another process still holds the lock after that; then wait without limit.

    Raises:
        BlockingIOError: another process holds the lock, and ``on_wait`` is None.
        OSError: the lock file cannot be created.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        if on_wait is None:
            raise BlockingIOError(errno.EWOULDBLOCK, "another process holds the lock", str(file)) from error
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()  # before releasing: a waiting process notices that the file is gone, and creates another
        lock.release()


def is_locked(file: Path) -> bool:
    """Return whether another process holds the lock; the folder of the file may be read-only."""
    try:
        import fcntl
    except ImportError:  # Windows
        return file.exists() and _cannot_be_locked(file)
    try:
        with file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _cannot_be_locked(file: Path) -> bool:
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):
        return True
    lock.release()
    return False
