"""The collections by name, and the whole way from an address to a folder that can be indexed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from searchengine.exchange.collections import cifar10, coco
from searchengine.exchange.collections.asking import DownloadError
from searchengine.exchange.collections.download import Resource, fetch
from searchengine.files import locked
from searchengine.progress import QUIET, Progress

WORK = ".download"  # within the folder: what is on its way, and a note of what is there
Unpack = Callable[[Path, Path, Progress], int]


@dataclass(frozen=True, slots=True)
class Part:
    """One archive of a collection.

    ``unpacked`` is how many bytes come of one byte of the archive, for the check of the disk; ``labels`` says that it
    holds no pictures.
    """

    resource: Resource
    unpack: Unpack
    unpacked: float = 1.05
    labels: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """A published collection.

    ``pictures`` is the folder to index, in that which was named; ``label_file`` what ``--labels`` takes.
    """

    name: str
    title: str
    parts: tuple[Part, ...]
    pictures: str
    label_file: str | None = None


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What is there now: the folder to index and its labels; ``files`` were taken out, 0 where all was there."""

    pictures: Path
    label_file: Path | None
    files: int


def _coco(split: str, title: str) -> Dataset:
    return Dataset(
        name=f"coco-{split}",
        title=title,
        parts=(
            Part(coco.photos(split), partial(coco.unpack_photos, split)),
            Part(coco.ANNOTATIONS, coco.unpack_annotations, unpacked=2.5, labels=True),
        ),
        pictures=split,
        label_file=f"annotations/instances_{split}.json",
    )


DATASETS = {
    one.name: one
    for one in (
        _coco("val2017", "COCO 2017, validation: 5 000 photographs, 0.8 GB and 0.25 GB of labels"),
        _coco("train2017", "COCO 2017, training: 118 287 photographs, 19 GB and 0.25 GB of labels"),
        Dataset(
            name="cifar10",
            title="CIFAR-10: 60 000 pictures of 32 x 32 in ten classes, 0.17 GB",
            # A picture has 2 kB, but takes a block of the disk.
            parts=(Part(cifar10.ARCHIVE, cifar10.unpack, unpacked=1.8),),
            pictures="train",
        ),
    )
}


def download_dataset(
    dataset: Dataset,
    to: Path,
    *,
    labels: bool = True,
    keep: bool = False,
    progress: Progress | None = None,
    pause: float = 1.0,
) -> Downloaded:
    """Fetches what is missing of a collection and unpacks it; does nothing where all is there.

    Args:
        dataset: one of ``DATASETS``.
        to: the folder; made if it is not there.
        labels: False leaves out archives that hold labels only.
        keep: leave the archives in ``to/.download``.
        progress: is told how it goes.
        pause: seconds before a broken connection is tried again for the first time.

    Raises:
        DownloadError: with what to do. What has come so far is kept.
    """
    progress = progress or QUIET
    files = 0
    with alone(to):
        for part in dataset.parts:
            if (labels or not part.labels) and not _is_there(part, to):
                files += _take(dataset, part, to, keep=keep, progress=progress, pause=pause)
    label_file = to / dataset.label_file if dataset.label_file is not None else None
    return Downloaded(to / dataset.pictures, label_file if label_file and label_file.exists() else None, files)


def _take(dataset: Dataset, part: Part, to: Path, *, keep: bool, progress: Progress, pause: float) -> int:
    work = to / WORK
    archive = fetch(
        part.resource,
        work,
        room=lambda left: _check_room(to, left, part, work / f"{part.resource.name}.part"),
        progress=progress,
        pause=pause,
    )
    # All of it appears at once: an unpacking that was stopped leaves nothing that looks whole.
    fresh = work / "unpacking"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        files = part.unpack(archive, fresh, progress)
        if files == 0:
            raise DownloadError(f"{archive.name} holds nothing of {dataset.title.split(':')[0]}.")
    except DownloadError as error:
        archive.unlink(missing_ok=True)
        raise DownloadError(f"{error} It was thrown away; run the same command again to fetch it anew.") from error
    except OSError as error:
        raise DownloadError(
            f"{archive.name} cannot be unpacked into {to}: {error.strerror or error}. Make room, and run the same "
            "command again; the archive is kept."
        ) from error
    made = [_put_in_place(one, to / one.relative_to(fresh)) for one in sorted(fresh.iterdir())]
    shutil.rmtree(fresh, ignore_errors=True)
    counted = {str(one.relative_to(to)): _count(one) for one in made}
    _note(part, to).write_text(json.dumps({"url": part.resource.url, "files": files, "folders": counted}))
    if not keep:
        archive.unlink(missing_ok=True)
    return files


def _put_in_place(fresh: Path, target: Path) -> Path:
    """Moves what was unpacked; a folder that other parts put files into as well takes these along."""
    if not target.exists():
        fresh.replace(target)
    elif fresh.is_dir() and target.is_dir():
        for one in sorted(fresh.iterdir()):
            _put_in_place(one, target / one.name)
    elif fresh.is_file() and target.is_file():
        fresh.replace(target)
    else:
        raise DownloadError(f"{target} is in the way. Move it elsewhere, or name another folder with --to.")
    return target


def _is_there(part: Part, to: Path) -> bool:
    """Whether this part was unpacked here before, and no file of it has gone."""
    try:
        told = json.loads(_note(part, to).read_text())
        return told["url"] == part.resource.url and all(
            _count(to / name) >= count for name, count in told["folders"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _note(part: Part, to: Path) -> Path:
    return to / WORK / f"{part.resource.name}.done"


def _count(path: Path) -> int:
    """Files in a folder and those below."""
    if path.is_file():
        return 1
    return sum(len(files) for _, _, files in os.walk(path))


def _check_room(to: Path, left: int, part: Part, there: Path) -> None:
    size = left + (there.stat().st_size if there.exists() else 0)
    needed = left + int(size * part.unpacked)
    free = shutil.disk_usage(to).free
    if free < needed:
        raise DownloadError(
            f"{part.resource.name} needs {needed / 1e9:.1f} GB in {to}, itself and unpacked, and {free / 1e9:.1f} GB "
            "are free. Make room, or name a folder on another disk with --to."
        )


@contextlib.contextmanager
def alone(to: Path) -> Iterator[Path]:
    """One download a folder at a time; a killed one leaves no lock behind. Gives the folder for what is on its way."""
    work = to / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{to} cannot be made: {error.strerror}. Name another folder with --to.") from error
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(work / "lock"))
        except BlockingIOError as error:
            raise DownloadError(f"Another download into {to} is running. Wait for it to end.") from error
        yield work
