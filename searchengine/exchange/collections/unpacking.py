"""What is taken out of an archive: regular files of the names that are expected, and nothing else."""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from searchengine.exchange.collections.asking import DownloadError
from searchengine.progress import Progress

_CHUNK = 1 << 20  # bytes


def unpack_zip(archive: Path, to: Path, wanted: re.Pattern[str], progress: Progress) -> int:
    """Takes the members out whose whole name is like ``wanted``; returns how many. DownloadError for a damaged file.

    ``wanted`` must not match a name that leads out of the folder. Links and other special members are refused.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if wanted.fullmatch(member.filename)]
            progress.start(len(members), what=f"unpacking {archive.name}", unit="files")
            for member in members:
                kind = stat.S_IFMT(member.external_attr >> 16)
                if kind not in (0, stat.S_IFREG):
                    raise DownloadError(f"{archive.name} holds a link in place of a file: {member.filename}.")
                target = _inside(to, member.filename)
                with opened.open(member) as source, target.open("wb") as file:
                    _copy(source, file, member.file_size)
                progress.advance(1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"{archive.name} is damaged ({error}).") from error
    return len(members)


def read_tar(archive: Path, wanted: re.Pattern[str], largest: int) -> Iterator[tuple[str, bytes]]:
    """The members whose whole name is like ``wanted``, one after the other, at most ``largest`` bytes each."""
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in opened:
                if not wanted.fullmatch(member.name):
                    continue
                if not member.isreg():
                    raise DownloadError(f"{archive.name} holds a link in place of a file: {member.name}.")
                if member.size > largest:
                    raise DownloadError(f"{archive.name} is damaged ({member.name} is larger than it can be).")
                file = opened.extractfile(member)
                assert file is not None
                with file:
                    yield member.name, file.read()
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise DownloadError(f"{archive.name} is damaged ({error}).") from error
    except OSError as error:
        if error.errno is not None:  # gzip's own complaints have no number
            raise
        raise DownloadError(f"{archive.name} is damaged ({error}).") from error


def _inside(folder: Path, name: str) -> Path:
    parts = name.split("/")
    if any(part in {"", ".", ".."} or "\\" in part or ":" in part or "\0" in part for part in parts):
        raise DownloadError(f"The archive holds a file that would lie outside of its folder: {name!r}.")
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _copy(source: IO[bytes], file: IO[bytes], size: int) -> None:
    left = size
    while chunk := source.read(_CHUNK):
        left -= len(chunk)
        if left < 0:
            raise zipfile.BadZipFile("a file in it is larger than it says")
        file.write(chunk)
