"""Unpacking: from an archive only regular files with the expected names are taken."""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from searchengine.download import DownloadError
from searchengine.progress import Progress

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_CHUNK = 1 << 20  # bytes
_SIDE = 32  # of a CIFAR-10 image
_RECORD = 1 + 3 * _SIDE * _SIDE  # a label, then the red, green and blue planes
_BATCH = 10_000
_BATCH_NAME = re.compile(r"(?:\./)?cifar-10-batches-bin/(?:data_batch_([1-5])|test_batch)\.bin", re.ASCII)


class BadArchiveError(DownloadError):
    """An archive is damaged, or does not hold what it should."""


def unpack_zip(archive: Path, to: Path, progress: Progress, names: re.Pattern[str]) -> int:
    """Unpack the members whose whole name matches ``names``, and return how many.

    BadArchiveError for a damaged archive, for links and for names that lead out of the folder.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if names.fullmatch(member.filename)]
            progress.start(len(members), what=f"unpacking {archive.name}", unit="files")
            for member in members:
                if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                    raise BadArchiveError(f"{archive.name} holds a link in place of a file: {member.filename}.")
                target = _inside(to, member.filename)
                with opened.open(member) as source, target.open("wb") as file:
                    _copy(source, file, member.file_size)
                progress.advance()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadArchiveError(f"{archive.name} is damaged ({error}).") from error
    return len(members)


def unpack_cifar10(archive: Path, to: Path, progress: Progress) -> int:
    """Write CIFAR-10 as ``to/train/cat/00042.png`` and ``to/test/cat/00007.png``, and return how many images.

    Images are numbered as in the archive. The binary archive is read, because the one for Python holds pickles, which
    can run any code. BadArchiveError for a damaged archive.
    """
    import numpy as np
    from PIL import Image

    for split in ("train", "test"):
        for label in CIFAR10_CLASSES:
            (to / split / label).mkdir(parents=True, exist_ok=True)
    progress.start(6 * _BATCH, what=f"unpacking {archive.name}")
    written = 0
    for batch, data in _read_tar(archive, _BATCH_NAME, _RECORD * _BATCH):
        if not data or len(data) % _RECORD:
            raise BadArchiveError(f"{archive.name} is damaged ({batch[0]} has {len(data):,} bytes).")
        records = np.frombuffer(data, dtype=np.uint8).reshape(-1, _RECORD)  # (n, 3073)
        if int(records[:, 0].max()) >= len(CIFAR10_CLASSES):
            raise BadArchiveError(f"{archive.name} is damaged ({batch[0]} names a class that does not exist).")
        # (n, 3072) -> (n, 3, 32, 32) -> (n, 32, 32, 3)
        images = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
        split, first = ("train", (int(batch[1]) - 1) * _BATCH) if batch[1] else ("test", 0)
        for number, (label, pixels) in enumerate(zip(records[:, 0].tolist(), images, strict=True), first):
            Image.fromarray(pixels).save(to / split / CIFAR10_CLASSES[label] / f"{number:05}.png")
            progress.advance()
        written += len(records)
    return written


def _read_tar(archive: Path, names: re.Pattern[str], max_bytes: int) -> Iterator[tuple[re.Match[str], bytes]]:
    """The members whose whole name matches, one after the other."""
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in opened:
                name = names.fullmatch(member.name)
                if name is None:
                    continue
                if not member.isreg():
                    raise BadArchiveError(f"{archive.name} holds a link in place of a file: {member.name}.")
                if member.size > max_bytes:
                    raise BadArchiveError(f"{archive.name} is damaged ({member.name} is larger than it can be).")
                file = opened.extractfile(member)
                assert file is not None
                with file:
                    yield name, file.read()
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise BadArchiveError(f"{archive.name} is damaged ({error}).") from error
    except OSError as error:
        if error.errno is not None:  # gzip raises OSError without a number for a damaged file
            raise
        raise BadArchiveError(f"{archive.name} is damaged ({error}).") from error


def _inside(folder: Path, name: str) -> Path:
    parts = name.split("/")
    if any(part in {"", ".", ".."} or "\\" in part or ":" in part or "\0" in part for part in parts):
        raise BadArchiveError(f"The archive holds a file that would lie outside its folder: {name!r}.")
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _copy(source: IO[bytes], file: IO[bytes], size: int) -> None:
    while chunk := source.read(_CHUNK):
        size -= len(chunk)
        if size < 0:
            raise zipfile.BadZipFile("a file in it is larger than it says")
        file.write(chunk)
