"""One file from a web server, whole or not at all: goes on where it broke off, and knows when the file has changed.

What has come stands in ``NAME.part``, what is known of it (address, size, the server's mark of this version) in
``NAME.part.json``. Only a file of the right size and, where its publisher gives one, the right hash gets its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from searchengine.exchange.collections.asking import Broken, DownloadError, ask, extent, mark_of, md5_of, read_some
from searchengine.progress import QUIET, Progress

_CHUNK = 1 << 20  # bytes
ATTEMPTS = 5  # in a row that bring nothing new


@dataclass(frozen=True, slots=True)
class Resource:
    """A file to fetch; ``md5`` is its publisher's, lower-case hex, None where none is given."""

    url: str
    md5: str | None = None

    @property
    def name(self) -> str:
        """What it is called, without a path."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class _Known:
    """What the part that is there belongs to; ``mark`` is the ETag or the date, as If-Range wants it.

    ``md5`` is what the server tells of the whole file, None where it tells nothing.
    """

    url: str
    size: int | None
    mark: str | None
    md5: str | None = None


def fetch(
    resource: Resource,
    folder: Path,
    *,
    room: Callable[[int], None] = lambda size: None,
    progress: Progress | None = None,
    pause: float = 1.0,
) -> Path:
    """Fetches a file into a folder, going on with what is there; returns its path.

    Args:
        resource: what to fetch.
        folder: where to; it must be there.
        room: called with the bytes still to come, once they are known; raises where the disk has no room for them.
        progress: is told how it goes.
        pause: seconds before the first new attempt; each later one waits twice as long.

    Raises:
        DownloadError: the server cannot be reached, has no such file, or what it sent is not what it should be.
    """
    target, part = folder / resource.name, folder / f"{resource.name}.part"
    if target.exists():
        return target
    progress = progress or QUIET
    failures, waiting, most = 0, pause, _size(part)
    while True:
        try:
            _transfer(resource, part, room, progress)
            break
        except Broken as error:
            # Only what was never here before counts, lest a server that lies be asked for ever.
            failures = 1 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures >= ATTEMPTS:
                raise DownloadError(
                    f"{resource.url} cannot be fetched: {error}. What has come is kept: run the same command again "
                    "later, and it goes on from there."
                ) from error
            if failures == 1:
                waiting = pause
            progress.say(f"{resource.name}: {error}; trying again")
            time.sleep(waiting)
            waiting *= 2
        except OSError as error:
            raise DownloadError(
                f"{part} cannot be written: {error.strerror or error}. What has come is kept; the same command goes on."
            ) from error
    _check(resource, part, progress)
    part.replace(target)
    _notes(part).unlink(missing_ok=True)
    return target


def _transfer(resource: Resource, part: Path, room: Callable[[int], None], progress: Progress) -> None:
    """One attempt: asks for what is missing, and writes what comes."""
    known = _read_notes(part)
    have = _size(part)
    if known is None or known.url != resource.url or (known.mark is None and known.size is None):
        have, known = 0, None
    if known is not None and known.size == have:
        return
    with ask(resource.url, have, None if known is None else known.mark) as response:
        answer: Message = response.headers
        start, size = extent(response.status, answer, have)
        mark, md5 = mark_of(answer), md5_of(answer)
        if start and size is None and known is not None:
            size = known.size
        if start and known is not None and (size != known.size or (mark is not None and mark != known.mark)):
            _forget(part)
            raise Broken("the file has changed on the server meanwhile, so it starts again")
        if size is not None:
            room(size - start)
        _write_notes(part, _Known(resource.url, size, mark, md5))
        progress.start(size, start, what=resource.name, unit="B")
        _write(response, part, start, progress)
    got = _size(part)
    if size is not None and got < size:
        raise Broken(f"the connection ended after {got:,} of {size:,} bytes")
    if size is not None and got > size:
        _forget(part)
        raise Broken(f"the server sent more than the {size:,} bytes it had promised, so it starts again")
    if size is None:
        _write_notes(part, _Known(resource.url, got, mark, md5))


def _write(response: Any, part: Path, start: int, progress: Progress) -> None:
    with part.open("r+b" if part.exists() else "wb") as file:
        file.truncate(start)
        file.seek(start)
        try:
            while chunk := read_some(response, _CHUNK):
                progress.advance(_put(file, chunk))
        except Broken as error:
            progress.advance(_put(file, error.partial))
            raise
        file.flush()
        os.fsync(file.fileno())


def _put(file: IO[bytes], chunk: bytes) -> int:
    file.write(chunk)
    return len(chunk)


def _check(resource: Resource, part: Path, progress: Progress) -> None:
    """Compares with the publisher's hash, or the server's; what is wrong is not kept."""
    known = _read_notes(part)
    wanted = resource.md5 or (known.md5 if known is not None else None)
    if wanted is None:
        return
    digest = hashlib.md5(usedforsecurity=False)
    progress.start(_size(part), what=f"checking {resource.name}", unit="B")
    with part.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            progress.advance(len(chunk))
    if digest.hexdigest() != wanted:
        _forget(part)
        raise DownloadError(
            f"{resource.name} is not what its publisher has put there: its MD5 is {digest.hexdigest()}, not "
            f"{wanted}. It was thrown away; run the same command again to fetch it anew."
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _read_notes(part: Path) -> _Known | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return _Known(**json.loads(_notes(part).read_text()))
    return None


def _write_notes(part: Path, known: _Known) -> None:
    _notes(part).write_text(json.dumps(asdict(known)))
