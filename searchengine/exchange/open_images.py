"""Downloads photographs of chosen classes from Open Images V7 (Kuznetsova et al. 2020).

The collection, https://storage.googleapis.com/openimages/web/index.html, has nine million photographs in three splits,
each with a table that says which photograph shows what. The largest table has two gigabytes, so one is downloaded only
if the splits before it have too few photographs; it is kept for later runs. The photographs come one by one from the
Common Visual Data Foundation, at most 1024 pixels wide or high.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from mmap import ACCESS_READ, mmap
from pathlib import Path

from searchengine.download import Client, DownloadError, NotOnServerError, Resource
from searchengine.errors import closest_first
from searchengine.exchange.collections import Downloaded, exclusive
from searchengine.files import csv_writer, file_size, parse_json, replace_text, replacing
from searchengine.progress import QUIET, Progress

SPLITS = ("validation", "test", "train")  # the small tables first
_THREADS = 8
_PHOTO_BYTES = 350_000  # average size of a photograph
_HEADER = b"ImageID,Source,LabelName,Confidence"
_PHOTO_ID = re.compile(rb"[0-9a-f]{16}(?=,)")  # at the beginning of a row
_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True, slots=True)
class Publisher:
    """Addresses of the class names, of each split's table, and of the photographs (``{split}`` and ``{id}``)."""

    classes: str
    labels: Mapping[str, str]
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
class Selection:
    """Which photographs to download: ``images`` of each class, searched for in the splits in this order.

    ``classes`` are names, in any case, or the publisher's ids (``/m/01yrx``).
    """

    classes: Sequence[str]
    images: int = 100
    splits: Sequence[str] = SPLITS


@dataclass(frozen=True, slots=True)
class _Photo:
    id: str
    split: str
    labels: Sequence[str]  # the requested classes that it shows


@dataclass(frozen=True, slots=True)
class _Notes:
    """Records kept between runs: the labels of each photograph, the first of which names its folder."""

    labels: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)  # ids of photographs that the server does not have

    @classmethod
    def read(cls, work: Path) -> _Notes:
        try:
            notes = parse_json((work / "labels.json").read_text())
            return cls(dict(notes["labels"]), list(notes["missing"]))
        except (OSError, ValueError, TypeError, KeyError):
            return cls()

    def write(self, work: Path) -> None:
        replace_text(work / "labels.json", json.dumps({"labels": self.labels, "missing": self.missing}))

    def add(self, photo: _Photo) -> None:
        labels = self.labels.setdefault(photo.id, [])
        labels.extend(label for label in photo.labels if label not in labels)

    def path(self, id_: str) -> str:
        """Return the path of a photograph in the folder of images."""
        return f"{self.labels[id_][0].replace('/', '-').lstrip('.') or 'class'}/{id_}.jpg"


def download_open_images(
    selection: Selection,
    to: Path,
    *,
    publisher: Publisher = PUBLISHER,
    progress: Progress = QUIET,
    client: Client | None = None,
) -> Downloaded:
    """Download photographs of each class into ``to/images/CLASS``, except those that are there already.

    A photograph that shows several of the classes is stored once and counts for each of them. In that case,
    ``to/labels.csv`` lists all labels, one per row.

    Raises:
        DownloadError: says what to do. Everything downloaded so far is kept.
    """
    with exclusive(to) as work, ExitStack() as stack:
        server = _Server(publisher, client or stack.enter_context(Client()), work, progress)
        classes = _class_ids(server.fetch(publisher.classes), selection.classes)
        notes = _Notes.read(work)
        files = 0
        while True:
            photos = _choose(selection, classes, server, set(notes.missing))
            for photo in photos:
                notes.add(photo)
            targets = {photo: to / "images" / notes.path(photo.id) for photo in photos}
            absent = {photo: target for photo, target in targets.items() if not target.is_file()}
            notes.write(work)  # before the download, so that a later run uses the same folders
            if not absent:
                break
            _check_space(to, len(absent) * _PHOTO_BYTES, f"{len(absent):,} photographs")
            missing = server.fetch_photos(absent)
            files += len(absent) - len(missing)
            for id_ in missing:
                del notes.labels[id_]
            notes.missing.extend(missing)  # and choose others in their place
        counts = Counter(label for photo in photos for label in photo.labels)
        for name in classes:
            if counts[name] < selection.images:
                progress.say(f"{name}: only {counts[name]} photographs in {', '.join(selection.splits)}")
        if not photos:
            raise DownloadError(
                f"There is no photograph of {', '.join(classes)} in {', '.join(selection.splits)}. Name other classes "
                "or splits."
            )
        return Downloaded(to / "images", _write_labels(to, notes), files)


@dataclass(frozen=True, slots=True)
class _Server:
    """Downloads tables and photographs; ``work`` is the folder for tables and unfinished files."""

    publisher: Publisher
    client: Client
    work: Path
    progress: Progress

    def fetch(self, url: str) -> Path:
        table = Resource(url)
        return self.client.fetch(
            table,
            self.work,
            check_space=lambda missing: _check_space(self.work, missing, table.name),
            progress=self.progress,
        )

    def fetch_photos(self, targets: Mapping[_Photo, Path]) -> list[str]:
        """Download each photograph to its path, and return the ids of those that the server does not have."""
        (self.work / "photos").mkdir(exist_ok=True)
        self.progress.start(len(targets), what="photographs", unit="photographs")
        missing = []
        with ThreadPoolExecutor(_THREADS) as pool:  # after an error, map cancels the downloads that have not begun
            for photo, exists in zip(targets, pool.map(self._fetch_photo, targets, targets.values()), strict=True):
                if not exists:
                    missing.append(photo.id)
                self.progress.advance()
        return missing

    def _fetch_photo(self, photo: _Photo, target: Path) -> bool:
        url = self.publisher.photos.format(split=photo.split, id=photo.id)
        try:
            file = self.client.fetch(Resource(url), self.work / "photos")
        except NotOnServerError:
            return False
        if not file.read_bytes().startswith(_JPEG):
            file.unlink()
            raise DownloadError(f"{url} is not a JPEG. Is there a proxy in between? Run the same command again.")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
        except OSError as error:
            raise DownloadError(
                f"{target} cannot be written: {error.strerror}. Move what is in the way elsewhere, or name another "
                "folder with --to."
            ) from error
        return True


def _class_ids(file: Path, requested: Sequence[str]) -> dict[str, set[str]]:
    """Return the requested classes by the publisher's names, with their ids; DownloadError if one does not exist."""
    ids: dict[str, set[str]] = {}
    names: dict[str, str] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            for id_, name in csv.reader(opened):
                if id_.startswith("/"):
                    ids.setdefault(name, set()).add(id_)
                    names.setdefault(name.lower(), name)
                    names.setdefault(id_, name)
    except (OSError, ValueError, csv.Error) as error:
        raise DownloadError(f"{file} is not a table of classes ({error}). Delete it, and run this again.") from error
    classes = {}
    for word in requested:
        name = names.get(" ".join(word.replace("_", " ").lower().split())) or names.get(word, "")
        if not name:
            close = ", ".join(closest_first(word, ids)[:8])
            raise DownloadError(
                f"Open Images has no class {word!r}. The closest are: {close}. All {len(ids):,} are listed in {file}."
            )
        classes[name] = ids[name]
    return classes


def _choose(selection: Selection, classes: Mapping[str, set[str]], server: _Server, missing: set[str]) -> list[_Photo]:
    """Choose enough photographs of each class, or all there are: always the same ones, except for missing ones."""
    names = {id_.encode(): name for name, ids in classes.items() for id_ in sorted(ids)}
    photos: list[_Photo] = []
    counts: Counter[str] = Counter()
    lacking = set(classes)
    for split in selection.splits:
        if not lacking:
            break
        for id_, labels in _labelled_photos(server.fetch(server.publisher.labels[split]), names):
            if id_ not in missing and not lacking.isdisjoint(labels):
                photos.append(_Photo(id_, split, labels))
                counts.update(labels)
                lacking = {name for name in classes if counts[name] < selection.images}
                if not lacking:
                    break
    return photos


def _labelled_photos(table: Path, names: Mapping[bytes, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the id of each photograph that shows one of the classes, and their names. ``names`` is class id -> name."""
    ids = b"|".join(map(re.escape, names))
    # Confidence 1: people have seen the class in the photograph; 0: they have seen that it is not there. The pattern
    # begins with the class because re finds fixed text ten times faster than it matches every row.
    label = re.compile(rb",(" + ids + rb"),1(?:\.0+)?\r?$", re.MULTILINE)
    with table.open("rb") as opened:
        beginning = opened.read(60)
        if not beginning.startswith(_HEADER):
            raise DownloadError(
                f"{table} begins with {beginning!r}. Its publisher has changed the format, or the file is damaged. "
                "Delete it and run this again; if that does not help, this version of searchengine cannot read it."
            )
        rows = mmap(opened.fileno(), 0, access=ACCESS_READ)

        def photo_id(match: re.Match[bytes]) -> str:
            row = _PHOTO_ID.match(rows, rows.rfind(b"\n", 0, match.start()) + 1)
            return row[0].decode() if row else ""

        for id_, matches in groupby(label.finditer(rows), key=photo_id):  # tables are sorted by photograph
            if id_:
                yield id_, tuple(dict.fromkeys(names[match[1]] for match in matches))


def _check_space(folder: Path, needed: int, what: str) -> None:
    """Raise DownloadError if the disk of a folder has no room for that many bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"There is no room for {what}: about {file_size(needed)} are needed in {folder}, and {file_size(free)} are "
            "free. Make room, ask for fewer photographs, or name a folder on another disk with --to."
        )


def _write_labels(to: Path, notes: _Notes) -> Path | None:
    """Write ``labels.csv`` if a photograph has several labels; otherwise the folders are the labels."""
    target = to / "labels.csv"
    if all(len(labels) < 2 for labels in notes.labels.values()):
        target.unlink(missing_ok=True)
        return None
    with replacing(target) as part, part.open("w", encoding="utf-8", newline="") as file:
        write = csv_writer(file)
        write(("path", "label"))
        for id_, labels in sorted(notes.labels.items()):
            for label in labels:
                write((notes.path(id_), label))
    return target
