"""A large table on a web server, read by lines and never kept: from any byte on, and on again where it broke off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from searchengine.exchange.collections.asking import Broken, DownloadError, ask, extent, mark_of, read_some
from searchengine.exchange.collections.download import ATTEMPTS

_CHUNK = 1 << 20  # bytes


class ChangedError(DownloadError):
    """The table is another one than that which was read before. Half a sentence: what follows is the caller's."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines of a table: ``end`` is the byte behind them, ``size`` that of the table where it is told.

    ``mark`` is the server's of this version of the table.
    """

    data: bytes
    end: int
    size: int | None
    mark: str | None

    @property
    def last(self) -> bool:
        """Whether nothing comes after them."""
        return self.size is not None and self.end >= self.size


def read_lines(
    url: str,
    start: int = 0,
    mark: str | None = None,
    *,
    pause: float = 1.0,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Lines]:
    """The lines from byte ``start`` on, about a megabyte at a time; the very last may lack its end.

    Args:
        url: of the table.
        start: where a line begins.
        mark: that of the version which was read before, None at the start.
        pause: seconds before a broken connection is tried again for the first time; each later pause is twice as long.
        say: is told what goes wrong meanwhile.

    Raises:
        ChangedError: it is another version now.
        DownloadError: the server cannot be reached, or has no such table.
    """
    failures, waiting = 0, pause
    while True:
        before = start
        try:
            for lines in _attempt(url, start, mark):
                yield lines
                start, mark = lines.end, lines.mark
            return
        except Broken as error:
            failures = 1 if start > before else failures + 1
            if failures >= ATTEMPTS:
                raise DownloadError(
                    f"{url} cannot be read: {error}. Run the same command again later, and it goes on from there."
                ) from error
            if failures == 1:
                waiting = pause
            say(f"{url.rsplit('/', 1)[-1]}: {error}; trying again")
            time.sleep(waiting)
            waiting *= 2


def _attempt(url: str, start: int, mark: str | None) -> Iterator[Lines]:
    with ask(url, start, mark) as answer:
        begins, size = extent(answer.status, answer.headers, start)
        now = mark_of(answer.headers)
        if (mark is not None and now is not None and now != mark) or (size is not None and size < start):
            raise ChangedError(f"{url} has changed on the server meanwhile")
        place, rest = begins, b""
        while chunk := read_some(answer, _CHUNK):
            place += len(chunk)
            if place - len(chunk) < start:  # all of it came, though a part was asked for
                chunk = chunk[max(0, start - place + len(chunk)) :]
            whole, end, rest = (rest + chunk).rpartition(b"\n")
            if end:
                yield Lines(whole + end, place - len(rest), size, now)
        if size is not None and place < size:
            raise Broken(f"the connection ended after {place:,} of {size:,} bytes")
        yield Lines(rest, place, place, now)  # the last line may lack its end; where the size was not told, it is now
