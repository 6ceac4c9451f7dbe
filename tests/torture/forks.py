"""Runs that are ended at a moment of one's choice, many a second: forked off a process that has all it needs loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any

CRASHED, KILLED, REFUSED = 9, -9, 3


class Forks:
    """Starts the operations of ``operations`` in processes of their own. To be closed, as by ``with``."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.operations"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"

    def run(
        self, operation: str, *, crash_at: int | None = None, kill_after: float | None = None, **arguments: Any
    ) -> int:
        """The exit status: 0 done, CRASHED at that step, KILLED after so many seconds, REFUSED in a sentence."""
        return self.timed(operation, crash_at=crash_at, kill_after=kill_after, **arguments)[0]

    def timed(
        self, operation: str, *, crash_at: int | None = None, kill_after: float | None = None, **arguments: Any
    ) -> tuple[int, float]:
        """The exit status, and how long it took in seconds."""
        order = {"operation": operation, "arguments": arguments, "crash_at": crash_at, "kill_after": kill_after}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(order, default=str), file=self._server.stdin, flush=True)
        status, seconds = json.loads(self._server.stdout.readline())
        return status, seconds

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()  # the end of its input is the end of it
