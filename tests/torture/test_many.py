"""A great many images: memory stays flat, and a run with nothing to do is fast."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from searchengine.engine import open_index
from tests.torture.conftest import sizes
from tests.torture.looking import answers
from tests.torture.photographs import png, write
from tests.web.test_gunicorn import ROOT

ROOM = 64.0  # MB that a run may take more than a run over a quarter of the images


def watched(*command: str | Path) -> tuple[float, list[float]]:
    """Run a command; return its duration in seconds and samples of its private memory in MB."""
    started = time.monotonic()
    run = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL)
    held: list[float] = []
    status = Path(f"/proc/{run.pid}/status")
    while run.poll() is None:
        words = status.read_text().split()
        if "RssAnon:" in words:
            held.append(int(words[words.index("RssAnon:") + 1]) / 1000)
        time.sleep(0.02)
    assert run.returncode == 0
    return time.monotonic() - started, held


def report(what: str, seconds: float, held: list[float]) -> None:
    quarters = [held[len(held) * i // 4] for i in (1, 2, 3)]
    print(f"{what}: {seconds:.1f} s; own memory at each quarter {', '.join(f'{m:.0f}' for m in quarters)}, "
          f"in the end {held[-1]:.0f}, at most {max(held):.0f} MB")  # fmt: skip


@pytest.mark.torture
@pytest.mark.parametrize("count", sizes("TORTURE_IMAGES", 20_000, 100_000))
def test_memory_is_flat(count: int, tmp_path: Path) -> None:
    check_memory(count, ("-m", "tests.torture.fake_run", "IMAGES", "INDEX"), tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("count", sizes("TORTURE_IMAGES_EMBEDDED", 2_000, 8_000))
def test_memory_is_flat_with_a_model(count: int, tmp_path: Path) -> None:
    check_memory(
        count, ("offline_index.py", "IMAGES", "--index-dir", "INDEX", "--model", "efficientnet-lite0"), tmp_path
    )


def check_memory(count: int, command: tuple[str, ...], tmp_path: Path) -> None:
    """Compare the peak of a run with that of a run over a quarter of the images, which loads and computes the same."""

    def words(images: Path, index: Path) -> list[str | Path]:
        places = {"IMAGES": images, "INDEX": index}
        return [places.get(word, word) for word in command]

    quarter = write(tmp_path / "quarter", range(count // 4))
    seconds, few = watched(*words(quarter, tmp_path / "small"))
    report(f"{count // 4} images", seconds, few)
    everything = words(write(tmp_path / "images", range(count)), tmp_path / "index")
    seconds, held = watched(*everything)
    report(f"{count} images", seconds, held)
    assert max(held) < max(few) + ROOM
    index = open_index(tmp_path / "index")
    assert len(index) == count
    index.close()
    seconds, held = watched(*everything)
    report("again, with nothing to do", seconds, held)
    assert answers(tmp_path / "index") == count


@pytest.mark.torture
def test_ten_thousand_files_in_one_folder(tmp_path: Path) -> None:
    """Some of the files are not images, and all are in one folder."""
    folder = tmp_path / "images"
    folder.mkdir()
    then = time.time_ns() - 60 * 10**9
    for i in range(10_000):
        file = folder / f"{i:05d}.{'png' if i % 5 else 'txt' if i % 2 else 'jpg'}"
        file.write_bytes(png(i) if i % 5 else b"no image" if i % 2 else b"")
        os.utime(file, ns=(then, then))
    watched("-m", "tests.torture.fake_run", folder, tmp_path / "index")
    index = open_index(tmp_path / "index")
    assert len(index) == 8000
    assert index.status().skipped == 1000  # the empty ones; text is not even looked at
    assert len(set(index.paths)) == 8000
    index.close()
    assert answers(tmp_path / "index") == 8000
