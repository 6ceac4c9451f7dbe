"""The progress bar, on a terminal and in a file."""

from __future__ import annotations

import io

import pytest

from searchengine.progress import QUIET, Bar, Progress


def work(progress: Progress) -> None:
    progress.start(2, what="Half")
    progress.advance()
    progress.start(3_000_000, 1_000_000, what="a.zip", unit="B")
    progress.advance(2_000_000)
    progress.say("A sentence.")
    for number in range(25):
        progress.skipped(f"{number}.jpg", "is no image")


def test_only_messages_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    work(QUIET)
    assert capsys.readouterr() == ("", "")
    with Bar(all_skipped="--json lists them all") as bar:
        work(bar)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == ["Half ...", "a.zip ...", "A sentence.", "skipped '0.jpg': is no image"]
    assert lines[-1] == "Further skipped files are not shown here: --json lists them all."
    assert len(lines) == 3 + 20 + 1


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Bar() as bar:
        work(bar)
    shown = terminal.getvalue()
    assert "Half:  50%" in shown
    assert "3.00M/3.00M" in shown
    assert "A sentence.\n" in shown
    assert "Half ..." not in shown
