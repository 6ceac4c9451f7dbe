"""A progress bar on stderr: images a second, time left, and the skipped files by name."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

_NAMED_AT_MOST = 20


class Bar:
    """What a person sees of a run. Without a terminal only the sentences remain."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._named = 0

    def start(self, total: int, done: int) -> None:
        """Show the bar, the part that needs no look already filled."""
        from tqdm import tqdm

        self._bar = tqdm(
            total=total,
            initial=done,
            unit=" images",
            file=sys.stderr,
            disable=None,  # where stderr is no terminal
            dynamic_ncols=True,
            smoothing=0.05,
        )

    def advance(self, files: int) -> None:
        """So many more are done."""
        if self._bar is not None:
            self._bar.update(files)

    def skipped(self, path: str, reason: str) -> None:
        """Name a file that cannot be used; the catalog lists all of them, the screen the first."""
        self._named += 1
        if self._named <= _NAMED_AT_MOST:
            self.say(f"skipped {path!r}: {reason}")
        elif self._named == _NAMED_AT_MOST + 1:
            self.say("further skipped files are not named here: searchengine info --skipped lists them")

    def say(self, sentence: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None and not self._bar.disable:
            self._bar.write(sentence, file=sys.stderr)
        else:
            print(sentence, file=sys.stderr, flush=True)  # noqa: T201

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
