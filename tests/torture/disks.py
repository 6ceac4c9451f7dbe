"""Small disks and read-only ones, for as long as they are needed: tmpfs and bind mounts. For root, on Linux."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mounted(*arguments: str | Path) -> None:
    """Mount, or skip the test where nobody may."""
    try:
        done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A disk of that size at a folder, which is made."""
    folder.mkdir(exist_ok=True)
    mounted("-t", "tmpfs", "-o", f"size={kilobytes}k", "none", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(folder: Path, kilobytes: int) -> None:
    """Make that disk larger or smaller."""
    mounted("-o", f"remount,size={kilobytes}k", folder)


@contextmanager
def read_only(folder: Path, at: Path) -> Iterator[Path]:
    """The same folder, at another place where it cannot be written to."""
    at.mkdir(exist_ok=True)
    mounted("--bind", folder, at)
    try:
        mounted("-o", "remount,bind,ro", at)
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)
