"""Progress of long-running work: silent, or as a bar on stderr.

Long functions take ``progress: Progress = QUIET`` and report to it::

    progress.start(len(images))                         # one bar; a second start() replaces it
    progress.start(total, done, what="Map", unit="B")   # a resumed, named step, counted in bytes
    progress.advance(len(batch))
    progress.skipped(path, "is not an image")
    progress.say("3 images have no label.")

Commands show progress with ``with Bar() as bar: long_function(..., progress=bar)``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Self

Say = Callable[[str], None]  # shows a message, as Progress.say does
_MAX_SKIPPED_SHOWN = 20


class Progress:
    """Receiver of the progress of long-running work. This one shows nothing; subclasses show some or all of it."""

    def start(self, total: int | None, done: int = 0, *, what: str = "", unit: str = "images") -> None:
        """Begin a step of ``total`` units, of which ``done`` are finished already; None if the total is unknown."""

    def advance(self, amount: int = 1) -> None:
        """Report that ``amount`` more units are done; negative if work has to be repeated."""

    def skipped(self, path: str, reason: str) -> None:
        """Report a file that cannot be used."""

    def say(self, sentence: str) -> None:
        """Show a message for the user."""


QUIET = Progress()


class Bar(Progress):
    """Progress as a tqdm bar on stderr; without a terminal, only messages and the names of steps are shown.

    Args:
        all_skipped: where to find the whole list of skipped files, of which only the first 20 are shown.
    """

    def __init__(self, all_skipped: str = "searchengine info --skipped lists them") -> None:
        self._bar: Any = None
        self._skipped = 0
        self._all_skipped = all_skipped

    def start(self, total: int | None, done: int = 0, *, what: str = "", unit: str = "images") -> None:
        """Replace the bar by a new one."""
        from tqdm import tqdm

        self.close()
        if what and not sys.stderr.isatty():
            self.say(f"{what} ...")
        self._bar = tqdm(
            desc=what or None,
            total=total,
            initial=done,
            unit="B" if unit == "B" else f" {unit}",
            unit_scale=unit == "B",
            file=sys.stderr,
            disable=None,  # disabled unless stderr is a terminal
            dynamic_ncols=True,
            smoothing=0.05,
        )

    def advance(self, amount: int = 1) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(amount)

    def skipped(self, path: str, reason: str) -> None:
        """Show a skipped file, up to a limit."""
        self._skipped += 1
        if self._skipped <= _MAX_SKIPPED_SHOWN:
            self.say(f"skipped {path!r}: {reason}")
        elif self._skipped == _MAX_SKIPPED_SHOWN + 1:
            self.say(f"Further skipped files are not shown here: {self._all_skipped}.")

    def say(self, sentence: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None and not self._bar.disable:
            self._bar.write(sentence, file=sys.stderr)
        else:
            print(sentence, file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        """Finish the bar, leaving it as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
