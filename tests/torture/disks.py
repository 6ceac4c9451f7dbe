"""Temporary small and read-only disks: tmpfs and bind mounts. They need root on Linux."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mounted(*arguments: str | Path) -> None:
    """Mount, or skip the test if that is not permitted."""
    try:
        done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a disk of the given size at a new folder."""
    folder.mkdir(exist_ok=True)
    mounted("-t", "tmpfs", "-o", f"size={kilobytes}k", "none", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(folder: Path, kilobytes: int) -> None:
    """Change the size of a disk."""
    mounted("-o", f"remount,size={kilobytes}k", folder)


@contextmanager
def read_only(folder: Path, at: Path) -> Iterator[Path]:
    """Mount a folder at another place, read-only."""
    at.mkdir(exist_ok=True)
    mounted("--bind", folder, at)
    try:
        mounted("-o", "remount,bind,ro", at)
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)
