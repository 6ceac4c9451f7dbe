"""Open Images V7 (Kuznetsova et al. 2020, https://storage.googleapis.com/openimages/web/index.html), by class.

Nine million photographs in three splits, in each of which people have said what is to be seen. Those tables have up to
two gigabytes: they are read from the web only as far as needed, and a run goes on where the last one stopped. The
photographs come one by one from the bucket of the Common Visual Data Foundation, at most 1024 pixels wide or high.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from searchengine.exchange.collections.asking import DownloadError, NotThereError
from searchengine.exchange.collections.catalogue import WORK, Downloaded, alone
from searchengine.exchange.collections.download import Resource, fetch
from searchengine.exchange.collections.selecting import Search
from searchengine.files import replace_text, replacing
from searchengine.progress import QUIET, Progress

NAME = "open-images"
TITLE = "Open Images V7: photographs of the classes that are named, 0.3 MB each"
SPLITS = ("validation", "test", "train")  # the small tables first
_THREADS = 8
_BYTES = 350_000  # of a photograph, on the average and with its block on the disk
_LABEL_FILE = "labels.csv"


@dataclass(frozen=True, slots=True)
class Publisher:
    """Where it lies: the classes, who has which by split, and the photographs (``{split}`` and ``{id}``)."""

    classes: str
    labels: dict[str, str]
    photos: str


_TABLES = "https://storage.googleapis.com/openimages/v7"
PUBLISHER = Publisher(
    classes=f"{_TABLES}/oidv7-class-descriptions.csv",
    labels={
        "validation": f"{_TABLES}/oidv7-val-annotations-human-imagelabels.csv",
        "test": f"{_TABLES}/oidv7-test-annotations-human-imagelabels.csv",
        "train": f"{_TABLES}/oidv7-train-annotations-human-imagelabels.csv",
    },
    photos="https://open-images-dataset.s3.amazonaws.com/{split}/{id}.jpg",
)


@dataclass(frozen=True, slots=True)
class Photo:
    """``labels``: those of the classes asked for, in the order in which they were."""

    id: str
    split: str
    labels: tuple[str, ...]


def download_open_images(
    classes: Sequence[str],
    images: int,
    to: Path,
    *,
    splits: Sequence[str] = SPLITS,
    publisher: Publisher = PUBLISHER,
    progress: Progress | None = None,
    pause: float = 1.0,
) -> Downloaded:
    """Fetches ``images`` photographs of each class, into ``to/images/CLASS``; those that are there stay.

    A photograph of several of the classes lies with the first and counts for all. Then ``to/labels.csv`` says which it
    has, a row for each.

    Args:
        classes: their names, in any case, or the publisher's marks (``/m/01yrx``).
        images: how many of each, at least 1.
        to: the folder; made if it is not there.
        splits: of SPLITS; a later one is looked into where those before have too few.
        publisher: where it lies.
        progress: is told how it goes.
        pause: seconds before a broken connection is tried again for the first time.

    Raises:
        DownloadError: with what to do. What has come so far is kept.
    """
    progress = progress or QUIET
    with alone(to) as work:
        (work / "photos").mkdir(exist_ok=True)
        marks = _marks(fetch(Resource(publisher.classes), work, progress=progress, pause=pause), classes)
        search = Search(marks, images, [(one, publisher.labels[one]) for one in splits], work, progress, pause)
        known = _read_known(work)
        came = 0
        while True:
            photos = [
                Photo(one.id, one.split, tuple(name for name in marks if marks[name] & one.marks))
                for one in search.photos()
            ]
            for one in photos:
                _add(known, one)
            _write_known(work, known)
            missing = [one for one in photos if not (to / _place(known, one)).is_file()]
            if not missing:
                break
            _check_room(to, len(missing))
            gone = _fetch(missing, to, known, publisher, progress, pause)
            came += len(missing) - len(gone)
            for id_ in gone:
                known.pop(id_, None)
            search.leave_out(gone)  # and look for others in their place
        for name, count in search.lacking().items():
            progress.say(f"{name}: only {count} photographs in {', '.join(splits)}")
        if not photos:
            raise DownloadError(
                f"There is no photograph of {', '.join(marks)} in {', '.join(splits)}. Name other classes or splits."
            )
        label_file = _write_labels(to, known)
    return Downloaded(to / "images", label_file, came)


def _marks(file: Path, classes: Sequence[str]) -> dict[str, frozenset[bytes]]:
    """The publisher's name of each class -> its marks. DownloadError where there is no such class."""
    found: dict[str, set[bytes]] = {}
    names: dict[str, str] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            for mark, name in csv.reader(opened):
                if mark.startswith("/"):
                    found.setdefault(name, set()).add(mark.encode())
                    names.setdefault(name.lower(), name)
                    names.setdefault(mark, name)
    except (OSError, ValueError, csv.Error) as error:
        raise DownloadError(
            f"{file} is not the table of classes that it should be ({error}). Delete it, and run this again."
        ) from error
    chosen = {}
    for one in classes:
        name = names.get(" ".join(one.replace("_", " ").lower().split())) or names.get(one, "")
        if not name:
            from searchengine.extractors.names import closest_first

            near = closest_first(one, found)[:8]
            raise DownloadError(
                f"Open Images has no class {one!r}. Near to it are: {', '.join(near)}. All {len(found):,} stand in "
                f"{file}."
            )
        chosen[name] = frozenset(found[name])
    return chosen


def _fetch(
    missing: Sequence[Photo],
    to: Path,
    known: dict[str, list[str]],
    publisher: Publisher,
    progress: Progress,
    pause: float,
) -> set[str]:
    """Brings photographs to their places; returns the ids of those that the server does not have."""
    gone = set()
    progress.start(len(missing), what="photographs", unit="photographs")
    pool = ThreadPoolExecutor(_THREADS)
    try:
        tasks = {pool.submit(_bring, one, to, _place(known, one), publisher, pause): one for one in missing}
        for task in as_completed(tasks):
            if not task.result():
                gone.add(tasks[task].id)
            progress.advance(1)
    finally:
        pool.shutdown(cancel_futures=True)
    return gone


def _bring(photo: Photo, to: Path, place: str, publisher: Publisher, pause: float) -> bool:
    try:
        file = fetch(
            Resource(publisher.photos.format(split=photo.split, id=photo.id)), to / WORK / "photos", pause=pause
        )
    except NotThereError:
        return False
    with file.open("rb") as opened:
        if opened.read(3) != b"\xff\xd8\xff":
            opened.close()
            file.unlink()
            raise DownloadError(
                f"What came for the photograph {photo.id} is no JPEG. Is a proxy in between? Run this again."
            )
    target = to / place
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written: {error.strerror}. Move what is in the way elsewhere, or name another folder "
            "with --to."
        ) from error
    return True


def _place(known: dict[str, list[str]], photo: Photo) -> str:
    """Where a photograph lies, or is to lie: below the folder."""
    first = known[photo.id][0]
    return f"images/{_folder_of(first)}/{photo.id}.jpg"


def _folder_of(label: str) -> str:
    return label.replace("/", "-").replace("\0", "").lstrip(".") or "class"


def _add(known: dict[str, list[str]], photo: Photo) -> None:
    labels = known.setdefault(photo.id, [])
    labels.extend(label for label in photo.labels if label not in labels)


def _read_known(work: Path) -> dict[str, list[str]]:
    """id -> labels of what earlier runs have brought; the first one is the folder's."""
    try:
        return dict(json.loads((work / "labels.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _write_known(work: Path, known: dict[str, list[str]]) -> None:
    replace_text(work / "labels.json", json.dumps(known))


def _write_labels(to: Path, known: dict[str, list[str]]) -> Path | None:
    """``labels.csv``, where a photograph has several."""
    target = to / _LABEL_FILE
    if all(len(labels) < 2 for labels in known.values()):
        target.unlink(missing_ok=True)
        return None
    with replacing(target) as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label"))
        for id_, labels in sorted(known.items()):
            rows.writerows((f"{_folder_of(labels[0])}/{id_}.jpg", label) for label in labels)
    return target


def _check_room(to: Path, photos: int) -> None:
    free = shutil.disk_usage(to).free
    if free < photos * _BYTES:
        raise DownloadError(
            f"{photos:,} photographs need about {photos * _BYTES / 1e9:.1f} GB in {to}, and {free / 1e9:.1f} GB are "
            "free. Make room, ask for fewer, or name a folder on another disk with --to."
        )
