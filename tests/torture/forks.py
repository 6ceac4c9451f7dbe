"""Runs that end at any chosen moment, many per second: forks of a process that has loaded all modules."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any

CRASHED, KILLED, REFUSED = 9, -9, 3


class Forks:
    """Starts the operations of ``operations`` in separate processes. Must be closed, as by ``with``."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.operations"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"

    def run(
        self, operation: str, *, crash_at: int | None = None, kill_after: float | None = None, **arguments: Any
    ) -> int:
        """Return the exit status: 0 done, CRASHED at that step, KILLED after that time, REFUSED with a message."""
        return self.timed(operation, crash_at=crash_at, kill_after=kill_after, **arguments)[0]

    def timed(
        self, operation: str, *, crash_at: int | None = None, kill_after: float | None = None, **arguments: Any
    ) -> tuple[int, float]:
        """Return the exit status and the duration in seconds."""
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
