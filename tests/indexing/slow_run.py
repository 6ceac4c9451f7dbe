"""A run that can be killed: ``python -m tests.indexing.slow_run IMAGES INDEX``. Small batches, committed at once.

With CRASH_AT=N in the environment the process ends by itself, as by kill -9, right before (N even) or after (N odd) the
N/2-th write, flush or commit.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from searchengine.indexing import IndexingOptions, run, update_index
from tests.fakes import SPEC, FakeExtractor


class Slow(FakeExtractor):
    def embed(self, images: Any) -> Any:
        time.sleep(float(os.environ.get("SLOW", "0.004")))
        return super().embed(images)


class Countdown:
    """Ends the process when it has counted down."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self) -> None:
        if self.steps == 0:
            os._exit(9)
        self.steps -= 1

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.step()
            result = call(*args, **kwargs)
            self.step()
            return result

        return counted


def crash_at(steps: int) -> None:
    countdown = Countdown(steps)

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if statement == "COMMIT":
                return countdown.around(super().execute)(statement)  # type: ignore[no-any-return]
            return super().execute(statement, *values)

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]
    os.pwrite = countdown.around(os.pwrite)
    os.fsync = countdown.around(os.fsync)


if __name__ == "__main__":
    run._COMMIT_SECONDS = 0.0
    if "CRASH_AT" in os.environ:
        crash_at(int(os.environ["CRASH_AT"]))
    print("ready", flush=True)
    update_index(
        [Path(sys.argv[1])],
        Path(sys.argv[2]),
        spec=SPEC,
        load=Slow,
        options=IndexingOptions(batch_size=2, rebuild="--rebuild" in sys.argv),
    )
