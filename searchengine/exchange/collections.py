"""COCO and CIFAR-10: from the publisher's archives, or copies of them, to a folder that can be indexed.

Only regular files with the expected names are taken from an archive.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from searchengine.download import Client, DownloadError, Resource, check_digest
from searchengine.files import file_size, locked, parse_json
from searchengine.progress import QUIET, Progress

WORK = ".download"  # subfolder for unfinished downloads, and for notes of what has been unpacked
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_SIDE = 32  # of a CIFAR-10 image
_RECORD = 1 + 3 * _SIDE * _SIDE  # a label, then the red, green and blue planes
_BATCH = 10_000
_BATCH_NAME = re.compile(r"(?:\./)?cifar-10-batches-bin/(?:data_batch_([1-5])|test_batch)\.bin", re.ASCII)


class BadArchiveError(DownloadError):
    """An archive is damaged, or does not have the expected contents."""


@dataclass(frozen=True, slots=True)
class Part:
    """One archive of a collection.

    Attributes:
        resource: the archive on the server.
        unpack: (archive, folder, progress) -> the number of files written.
        files: the number of files expected.
        unpacked: bytes on the disk per byte of the archive, to check for enough space.
        labels: whether the archive holds only labels.
    """

    resource: Resource
    unpack: Callable[[Path, Path, Progress], int]
    files: int
    unpacked: float = 1.05
    labels: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """A published collection: ``pictures`` is the subfolder to index, ``label_file`` the file for ``--labels``."""

    name: str
    parts: tuple[Part, ...]
    pictures: str
    label_file: str | None = None


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """How to download a collection.

    Attributes:
        labels: False skips archives that hold only labels.
        keep: keep downloaded archives, in the subfolder ``.download``.
        archives: copies of the publisher's archives, under their own names; they are checked, and not changed.
    """

    labels: bool = True
    keep: bool = False
    archives: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The folder to index and its labels. ``files`` counts the added files; 0 if the collection was complete."""

    pictures: Path
    label_file: Path | None
    files: int


# -- reading archives -------------------------------------------------------------------------------------------------


def unpack_zip(archive: Path, to: Path, progress: Progress, names: re.Pattern[str]) -> int:
    """Unpack the members whose whole name matches ``names``, and return how many there are.

    ``names`` must match no path that leads out of the folder. BadArchiveError for a damaged archive and for links.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if names.fullmatch(member.filename)]
            progress.start(len(members), what=f"unpacking {archive.name}", unit="files")
            for member in members:
                if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                    raise BadArchiveError(f"{archive.name} holds a link in place of the file {member.filename}.")
                target = to / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
                progress.advance()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadArchiveError(f"{archive.name} is damaged ({error}).") from error
    return len(members)


def unpack_cifar10(archive: Path, to: Path, progress: Progress) -> int:
    """Write CIFAR-10 as ``to/train/cat/00042.png`` and ``to/test/cat/00007.png``, and return how many images.

    Images are numbered as in the archive. This reads the binary archive, because the one for Python holds pickles,
    which can run any code. BadArchiveError for a damaged archive.
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
    """Yield the match of each member whose whole name matches, and its contents."""
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in opened:
                name = names.fullmatch(member.name)
                if name is None:
                    continue
                if not member.isreg():
                    raise BadArchiveError(f"{archive.name} holds a link in place of the file {member.name}.")
                if member.size > max_bytes:
                    raise BadArchiveError(f"{archive.name} is damaged ({member.name} is larger than possible).")
                file = opened.extractfile(member)
                assert file is not None
                with file:
                    yield name, file.read()
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise BadArchiveError(f"{archive.name} is damaged ({error}).") from error
    except OSError as error:
        if error.errno is not None:  # gzip raises an OSError without a number for a damaged file
            raise
        raise BadArchiveError(f"{archive.name} is damaged ({error}).") from error


# -- the catalogue ----------------------------------------------------------------------------------------------------


# COCO 2017 (Lin et al. 2014, https://cocodataset.org). Its publisher gives no hashes; these have been used by detection
# libraries for years. The certificate is for another host name, hence no https.
_COCO = "http://images.cocodataset.org"
_COCO_LABELS = Part(
    Resource(f"{_COCO}/annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c"),
    partial(unpack_zip, names=re.compile(r"annotations/instances_(val|train)2017\.json", re.ASCII)),
    files=2,
    unpacked=2.5,
    labels=True,
)


def _coco(split: str, files: int, md5: str) -> Dataset:
    photos = partial(unpack_zip, names=re.compile(rf"{split}/[0-9]{{12}}\.jpg", re.ASCII))
    return Dataset(
        name=f"coco-{split}",
        parts=(Part(Resource(f"{_COCO}/zips/{split}.zip", md5), photos, files), _COCO_LABELS),
        pictures=split,
        label_file=f"annotations/instances_{split}.json",
    )


DATASETS = {
    dataset.name: dataset
    for dataset in (
        _coco("val2017", 5_000, "442b8da7639aecaf257c1dceb8ba8c80"),
        _coco("train2017", 118_287, "cced6f7f71b7629ddf16f17bbcfab6b2"),
        Dataset(  # Krizhevsky 2009
            name="cifar10",
            parts=(
                Part(
                    Resource(
                        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
                    ),
                    unpack_cifar10,
                    files=60_000,
                    unpacked=1.8,  # a PNG has 2 kB but takes up a whole block
                ),
            ),
            pictures="train",
        ),
    )
}


def download_dataset(
    dataset: Dataset,
    to: Path,
    options: DownloadOptions | None = None,
    *,
    progress: Progress = QUIET,
    client: Client | None = None,
) -> Downloaded:
    """Download and unpack the missing parts of a collection into the folder ``to``.

    Raises:
        DownloadError: says what to do. Everything downloaded so far is kept, and so is every file of the user.
    """
    options = options or DownloadOptions()
    copies = _match(options.archives, dataset)
    files = 0
    with exclusive(to) as work, ExitStack() as stack:
        client = client or stack.enter_context(Client())
        for part in dataset.parts:
            name = part.resource.name
            if (part.labels and not options.labels and name not in copies) or _is_unpacked(part, to):
                continue
            archive = copies.get(name, work / name)
            downloaded = not archive.exists()
            if downloaded:
                _fetch(part, to, client, progress)
            else:
                _check_copy(part, archive, to, progress)
            try:
                files += _unpack(part, archive, to, progress)
            except BadArchiveError as error:
                raise _bad_archive(archive, part, error, downloaded=downloaded) from error
            if downloaded and not options.keep:
                archive.unlink(missing_ok=True)
            elif archive.parent == work:
                progress.say(f"{archive} is kept. Delete it if you no longer need it.")
    label_file = to / dataset.label_file if dataset.label_file is not None else None
    return Downloaded(to / dataset.pictures, label_file if label_file and label_file.exists() else None, files)


@contextmanager
def exclusive(to: Path) -> Iterator[Path]:
    """Allow one download into a folder at a time, and yield the subfolder for unfinished work."""
    work = to / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{to} cannot be created: {error.strerror}. Name another folder with --to.") from error
    try:
        with locked(work / "lock"):
            yield work
    except BlockingIOError as error:
        raise DownloadError(f"Another download into {to} is running. Wait for it to end.") from error


# -- archives: downloaded, or copies ----------------------------------------------------------------------------------


def _match(archives: Sequence[Path], dataset: Dataset) -> Mapping[str, Path]:
    """Return the given copies of the collection's archives by the publisher's names."""
    names = [part.resource.name for part in dataset.parts]
    for archive in archives:
        if not archive.is_file():
            raise DownloadError(f"There is no file {archive}. Check the path given to --archive.")
        if archive.name not in names:
            raise DownloadError(
                f"{archive} does not have the name of an archive of {dataset.name}: {' or '.join(names)}. Give a file "
                "with one of these names to --archive."
            )
    return {archive.name: archive for archive in archives}


def _fetch(part: Part, to: Path, client: Client, progress: Progress) -> None:
    unfinished = to / WORK / f"{part.resource.name}.part"
    try:
        client.fetch(
            part.resource,
            to / WORK,
            check_space=lambda missing: _check_space(
                part, to, missing, unfinished.stat().st_size if unfinished.exists() else 0
            ),
            progress=progress,
        )
    except DownloadError as error:
        raise DownloadError(
            f"{error}\nWithout a connection, get {part.resource.url} elsewhere, and name the file with --archive."
        ) from error


def _check_copy(part: Part, archive: Path, to: Path, progress: Progress) -> None:
    """Check an archive that was not downloaded in this run in the same way as a download."""
    _check_space(part, to, 0, archive.stat().st_size)
    if part.resource.digest is not None:
        try:
            check_digest(archive, part.resource.digest, archive.name, progress)
        except DownloadError as error:
            raise _bad_archive(archive, part, error, downloaded=False) from error


def _bad_archive(archive: Path, part: Part, error: DownloadError, *, downloaded: bool) -> DownloadError:
    if downloaded:
        archive.unlink(missing_ok=True)
        return DownloadError(f"{error} It was deleted; run the same command again to download it.")
    return DownloadError(
        f"{error} Nothing was unpacked, and {archive} was left as it is. Replace it with {part.resource.url}, or move "
        "it elsewhere, and run the same command without it to download that."
    )


def _check_space(part: Part, to: Path, missing: int, present: int) -> None:
    needed = missing + int((missing + present) * part.unpacked)
    free = shutil.disk_usage(to).free
    if free < needed:
        raise DownloadError(
            f"{part.resource.name} needs {file_size(needed)} in {to} for the archive and its contents, and "
            f"{file_size(free)} are free. Make room, or name a folder on another disk with --to."
        )


# -- unpacking ------------------------------------------------------------------------------------------------------


def _unpack(part: Part, archive: Path, to: Path, progress: Progress) -> int:
    """Unpack an archive beside the collection, move all of it into place, and return the number of files."""
    unpacked = to / WORK / "unpacking"
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        unpacked.mkdir()
        files = part.unpack(archive, unpacked, progress)
        if files != part.files:
            raise BadArchiveError(f"{archive.name} holds {files:,} of the {part.files:,} files expected.")
        moved = [_move(source, to / source.name) for source in sorted(unpacked.iterdir())]
    except OSError as error:
        raise DownloadError(
            f"{archive.name} cannot be unpacked into {to}: {error.strerror or error}. Make room, and run the same "
            "command again. The archive is kept."
        ) from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    folders = {target.name: _count(target) for target in moved}
    _note(part, to).write_text(json.dumps({"url": part.resource.url, "files": files, "folders": folders}))
    return files


def _move(source: Path, target: Path) -> Path:
    """Move a file or folder. Files that another archive has put into the same folder stay."""
    if not target.exists() or (source.is_file() and target.is_file()):
        source.replace(target)
    elif source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir()):
            _move(child, target / child.name)
    else:
        raise DownloadError(f"{target} is in the way. Move it elsewhere, or name another folder with --to.")
    return target


def _is_unpacked(part: Part, to: Path) -> bool:
    """Return whether the archive was unpacked here before and none of its files is missing."""
    try:
        note = parse_json(_note(part, to).read_text())
        return note["url"] == part.resource.url and all(
            _count(to / name) >= count for name, count in note["folders"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _note(part: Part, to: Path) -> Path:
    return to / WORK / f"{part.resource.name}.done"


def _count(path: Path) -> int:
    """Count the files in a folder and its subfolders."""
    return 1 if path.is_file() else sum(len(files) for _, _, files in os.walk(path))
