"""Files: replaced in one step, flushed to the disk, locked; JSON that others wrote, CSV that others open."""

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

_COUNTER = itertools.count(1)  # its next() is one step of the interpreter: two threads never share a temporary file


# -- replacing a file in one step -----------------------------------------------------------------------------------


@contextmanager
def replacing(file: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary file to write to, which takes the name ``file`` when the block ends without an error.

    A process that is killed at any moment leaves the old file or the new one, never half of one.

    Args:
        file: what to replace; its folder is made if it is missing.
        durable: wait until content and name are on the disk, so that a power cut cannot leave an empty file, and first
            delete the temporary files of killed processes. Neither is worth its time in a cache of many small files.

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
    """Write a file in one step; see ``replacing``."""
    with replacing(file, durable=durable) as part:
        part.write_bytes(data)


def replace_text(file: Path, text: str) -> None:
    """Write a file of UTF-8 text in one step; see ``replacing``."""
    replace_bytes(file, text.encode("utf-8"))


def _delete_leftovers(file: Path) -> None:
    for part in file.parent.glob(f".{glob.escape(file.name)}.*.part"):
        process = part.name.split(".")[-2]
        if process.isdigit() and not _is_running(int(process)):
            part.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":
        return True  # it cannot be asked: os.kill would end it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # under another user
    return True


# -- names of files as text -------------------------------------------------------------------------------------------
#
# Python decodes names as the locale says, which may differ from run to run, and what is not text becomes surrogates,
# which cannot be stored.


def path_to_text(file: Path) -> str:
    """A path as it can be stored, whatever the locale; one that is not UTF-8 as a ``file:`` address."""
    try:
        return os.fsencode(file).decode("utf-8")
    except UnicodeDecodeError:
        return file.absolute().as_uri()


def path_from_text(text: str) -> Path:
    """The inverse of ``path_to_text``; also reads what a person typed."""
    if text.startswith("file:///"):
        return Path(os.fsdecode(unquote_to_bytes(urlsplit(text).path)))
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return Path(os.fsdecode(text.encode("utf-8", "surrogateescape")))
    return Path(text)


# -- files that may have become something else ------------------------------------------------------------------------

MAX_PHOTO_BYTES = 512 * 2**20
_WITHOUT_WAITING = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"))  # where they exist


def open_regular(file: str | bytes | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading without ever waiting: OSError if it is anything but a regular file.

    Opening a named pipe waits for a writer, and a device may never end. A photo can have become one since its folder
    was listed.
    """
    descriptor = os.open(file, os.O_RDONLY | _WITHOUT_WAITING)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(file))
    return os.fdopen(descriptor, "rb")


def read_regular(file: str | bytes | os.PathLike[str]) -> bytes:
    """The bytes of a photo; OSError as of ``open_regular``, and beyond ``MAX_PHOTO_BYTES``."""
    with open_regular(file) as opened:
        if os.fstat(opened.fileno()).st_size > MAX_PHOTO_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), os.fspath(file))
        return opened.read()


# -- files that a person named ----------------------------------------------------------------------------------------


@contextmanager
def output_file(file: Path) -> Iterator[Path]:
    """``replacing`` for a file that a person named; IndexingError says why it cannot be written."""
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
    """IndexingError if a file stands where a folder to write to, or one above it, has to be."""
    for place in (folder, *folder.parents):
        if os.path.lexists(place) and not place.is_dir():
            raise IndexingError(f"{place} is a file, so nothing can be written into it. Name another folder.")


def file_size(size: float) -> str:
    """A number of bytes in the largest unit that leaves it above one: "553 MB", "1.3 GB"."""
    units = ["GB", "MB", "kB", "bytes"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop()
    return f"{size:.0f} {units[-1]}" if size >= 9.95 or units[-1] == "bytes" else f"{size:.1f} {units[-1]}"


def bytes_of(files: Iterable[Path]) -> int:
    """What the files take together; one that is gone or cannot be looked at counts nothing."""
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.stat().st_size
    return total


# -- JSON -------------------------------------------------------------------------------------------------------------


def parse_json(text: str | bytes) -> Any:
    """The value of JSON that may come from anywhere; ValueError whatever is wrong with it.

    ``json.loads`` raises RecursionError where lists or objects are nested thousands deep.
    """
    try:
        return json.loads(text)  # noqa: TID251
    except RecursionError as error:
        raise ValueError("it is JSON that is nested too deeply") from error


# -- CSV --------------------------------------------------------------------------------------------------------------

# Where a cell begins, also for a spreadsheet that splits rows at semicolons, tabs or bars: it takes the quotes of a
# cell between commas for text.
_BEGIN = r"(?:^|(?<=[;|\t\r\n]))"
_FORMULA = r"(?=[ \xa0\"']*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])"  # the last four: full-width
_UNGUARDED, _GUARDED = re.compile(_BEGIN + _FORMULA), re.compile(_BEGIN + "'" + _FORMULA)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def csv_writer(opened: TextIO) -> Callable[[Iterable[object]], None]:
    """A function that writes a row to a CSV file, safe to open in a spreadsheet.

    Text that a spreadsheet would run as a formula (it begins with =, +, -, @, a tab or a carriage return, perhaps
    after blanks and quotes) gets an apostrophe in front, also after a semicolon, tab, bar or line break within the
    cell. ``unguarded`` takes them off again; numbers stay numbers.
    """
    writer = csv.writer(opened)

    def write(row: Iterable[object]) -> None:
        writer.writerow([_guarded(cell) if isinstance(cell, str) else cell for cell in row])

    return write


def _guarded(cell: str) -> str:
    return cell if _NUMBER.fullmatch(cell) else _UNGUARDED.sub("'", cell)


def unguarded(cell: str) -> str:
    """A cell as it was before ``csv_writer`` guarded it."""
    return _GUARDED.sub("", cell)


# -- the disk -------------------------------------------------------------------------------------------------------


def flush(file: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with file.open("r+b" if os.name == "nt" else "rb") as opened:
        os.fsync(opened.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: flushing a file need not save its name."""
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows has no such thing
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems cannot
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


# -- locks ------------------------------------------------------------------------------------------------------------


@contextmanager
def locked(file: Path, *, patience: float = 0, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock between processes; the kernel releases it when its holder dies.

    Args:
        file: the lock file; made, and deleted when the lock is released.
        patience: seconds in which another process may release it.
        on_wait: called once if another process still holds the lock, which is then waited for.

    Raises:
        BlockingIOError: another process holds the lock, and there is no ``on_wait``.
        OSError: the lock file cannot be made.
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
            file.unlink()  # while it is held: whoever waits for it sees that it is gone, and makes another
        lock.release()


def is_locked(file: Path) -> bool:
    """Whether another process holds the lock of a file, which may lie where nothing can be written."""
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
