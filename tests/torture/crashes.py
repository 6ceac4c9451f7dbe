"""Ends the process, as kill -9 does, at its n-th operation on a disk."""

from __future__ import annotations

import functools
import os
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

# Told by the interpreter itself, before they are done.
_CHANGES = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_STATEMENTS = ("BEGIN IMMEDIATE", "COMMIT", "PRAGMA journal_mode", "PRAGMA wal_checkpoint", "ATTACH", "DETACH")


class Countdown:
    """Counts operations down and ends the process at zero."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self) -> None:
        if self.due():
            os._exit(9)

    def due(self) -> bool:
        self.steps -= 1
        return self.steps < 0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.step()
            result = call(*args, **kwargs)
            self.step()
            return result

        return counted


def crash_at(steps: int) -> None:
    """End the process at the given step from now on.

    A step is the moment before, and another the one after, each ``pwrite``, ``fsync``, ``BEGIN``, ``COMMIT``,
    checkpoint and ATTACH; the midst of each ``pwrite``; and the moment before a file is opened for writing, made, named
    anew, linked, cut or deleted.
    """
    countdown = Countdown(steps)

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if statement.startswith(_STATEMENTS):
                return countdown.around(super().execute)(statement, *values)  # type: ignore[no-any-return]
            return super().execute(statement, *values)

    pwrite = os.pwrite

    def torn(descriptor: int, data: Any, position: int) -> int:
        countdown.step()
        if countdown.due():
            pwrite(descriptor, memoryview(data)[: len(data) // 2], position)
            os._exit(9)
        written = pwrite(descriptor, data, position)
        countdown.step()
        return written

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING):
            countdown.step()

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]
    os.pwrite = torn  # type: ignore[assignment]
    os.fsync = countdown.around(os.fsync)
    sys.addaudithook(hook)
