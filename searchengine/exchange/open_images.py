"""Open Images V7 (Kuznetsova et al. 2020, https://storage.googleapis.com/openimages/web/index.html), by class.

Nine million photographs in three splits. Tables say which photograph shows what; the largest has two gigabytes, so they
are read while they are downloaded, and only as far as needed. What has arrived of them is kept for the next search. The
photographs come one by one from the bucket of the Common Visual Data Foundation, at most 1024 pixels wide or high.
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
from functools import cached_property
from pathlib import Path

from searchengine.download import Client, DownloadError, NotOnServerError, Resource
from searchengine.errors import closest_first
from searchengine.exchange.collections import WORK, Downloaded, exclusive
from searchengine.files import csv_writer, file_size, parse_json, replace_text, replacing
from searchengine.progress import QUIET, Progress

SPLITS = ("validation", "test", "train")  # the small tables first
_THREADS = 8
_BYTES = 350_000  # of a photograph on the disk, on average
_HEADER = b"ImageID,Source,LabelName,Confidence"
_BLOCK = 32 << 20  # bytes of a table read at a time
_ID = 16  # hexadecimal digits


@dataclass(frozen=True, slots=True)
class Publisher:
    """Addresses: the names of the classes, the table of each split, and the photographs (``{split}`` and ``{id}``)."""

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
    """Which photographs: ``images`` of each class, looked for in the splits in this order.

    ``classes`` are names, in any case, or the publisher's ids (``/m/01yrx``).
    """

    classes: Sequence[str]
    images: int = 100
    splits: Sequence[str] = SPLITS


@dataclass(slots=True)
class _Photo:
    id: str
    split: str
    labels: list[str]  # of the classes asked for


@dataclass(slots=True)
class _Notes:
    """What is remembered from run to run: the labels of each photograph, the first its folder; and those without."""

    labels: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)  # the server does not have them

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
        """The path of a photograph in the folder of images."""
        return f"{self.labels[id_][0].replace('/', '-').lstrip('.') or 'class'}/{id_}.jpg"


def download_open_images(
    selection: Selection,
    to: Path,
    *,
    publisher: Publisher = PUBLISHER,
    progress: Progress = QUIET,
    client: Client | None = None,
) -> Downloaded:
    """Download photographs of each class into ``to/images/CLASS``; those that are there stay.

    A photograph of several of the classes lies in the folder of one and counts for all. ``to/labels.csv`` then lists
    the labels, one a row.

    Raises:
        DownloadError: says what to do. What has arrived so far is kept.
    """
    with exclusive(to) as work, ExitStack() as stack:
        client = client or stack.enter_context(Client())
        classes = _class_ids(client.fetch(Resource(publisher.classes), work, progress=progress), selection.classes)
        notes = _Notes.read(work)
        by_id = {id_.encode(): name for name, ids in classes.items() for id_ in sorted(ids)}
        search = _Search(by_id, selection, publisher, work, client, progress)
        files = 0
        while True:
            photos = search.run(notes.missing)
            for photo in photos:
                notes.add(photo)
            absent = [photo for photo in photos if not (to / "images" / notes.path(photo.id)).is_file()]
            notes.write(work)  # first, so that another run puts photographs into the same folders
            if not absent:
                break
            _check_space(to, len(absent))
            missing = _fetch_photos(absent, to, notes, search)
            files += len(absent) - len(missing)
            for id_ in missing:
                del notes.labels[id_]
            notes.missing += missing  # and search for others in their place
        counts = Counter(label for photo in photos for label in photo.labels)
        for name in classes:
            if counts[name] < selection.images:
                progress.say(f"{name}: only {counts[name]} photographs in {', '.join(selection.splits)}")
        if not photos:
            raise DownloadError(
                f"There is no photograph of {', '.join(classes)} in {', '.join(selection.splits)}. Name other classes "
                "or splits."
            )
        label_file = _write_labels(to, notes)
    return Downloaded(to / "images", label_file, files)


def _class_ids(file: Path, asked: Sequence[str]) -> dict[str, set[str]]:
    """The publisher's name of each class asked for -> its ids. DownloadError if there is no such class."""
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
        raise DownloadError(
            f"{file} is not the table of classes that it should be ({error}). Delete it, and run this again."
        ) from error
    chosen = {}
    for word in asked:
        name = names.get(" ".join(word.replace("_", " ").lower().split())) or names.get(word, "")
        if not name:
            close = ", ".join(closest_first(word, ids)[:8])
            raise DownloadError(
                f"Open Images has no class {word!r}. The closest are: {close}. All {len(ids):,} are listed in {file}."
            )
        chosen[name] = ids[name]
    return chosen


# -- the search in the tables ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Search:
    """Looks for photographs that show the classes, in one table after the other until there are enough.

    ``classes`` are their names by the publisher's ids; tables are kept in the folder ``work``.
    """

    classes: Mapping[bytes, str]
    selection: Selection
    publisher: Publisher
    work: Path
    client: Client
    progress: Progress

    @cached_property
    def _row(self) -> re.Pattern[bytes]:
        """A row that says that one of the classes is in a photograph."""
        ids = b"|".join(map(re.escape, self.classes))
        # Confidence 1: people have seen it in the photograph; 0: they have seen that it is not there.
        return re.compile(rb"^([0-9a-f]{16}),[^,\n]*,(" + ids + rb"),1(?:\.0+)?\r?$", re.MULTILINE)

    def run(self, missing: Sequence[str]) -> list[_Photo]:
        """Enough photographs of each class, or all there are; always the same first ones, without those missing."""
        photos: list[_Photo] = []
        for split in self.selection.splits:
            photos += self._read(split, Counter(label for photo in photos for label in photo.labels), set(missing))
        return photos

    def _read(self, split: str, before: Counter[str], missing: set[str]) -> list[_Photo]:
        """Photographs of a split for classes that do not have enough yet; reads its table no further than needed."""
        photos: list[_Photo] = []
        counts = before.copy()
        if not self._lacking(counts):
            return photos
        for rows, is_start in self._photo_rows(Resource(self.publisher.labels[split])):
            if is_start:  # perhaps again: the table has changed on the server
                photos, counts = [], before.copy()
            by_id: dict[str, list[str]] = {}
            for row in self._row.finditer(rows):
                by_id.setdefault(row[1].decode(), []).append(self.classes[row[2]])
            for id_, labels in by_id.items():
                if id_ not in missing and self._lacking(counts) & set(labels):
                    photos.append(_Photo(id_, split, list(dict.fromkeys(labels))))
                    counts.update(photos[-1].labels)
            if not self._lacking(counts):
                break
        return photos

    def _lacking(self, counts: Counter[str]) -> set[str]:
        return {name for name in self.classes.values() if counts[name] < self.selection.images}

    def _photo_rows(self, table: Resource) -> Iterator[tuple[bytes, bool]]:
        """All rows of some photographs at a time (tables are sorted by photograph); and whether a table starts here."""
        offset = 0
        for file, size in self.client.stream(table, self.work, progress=self.progress):
            if size < offset:
                offset = 0
            with file.open("rb") as opened:
                while offset < size:
                    opened.seek(offset)
                    rows = opened.read(min(_BLOCK, size - offset))
                    is_end = file.name == table.name and offset + len(rows) == size  # under its name it is complete
                    end = len(rows) if is_end else _last_photo(rows)
                    if end == 0:
                        break
                    if offset == 0 and not rows.startswith(_HEADER):
                        raise DownloadError(
                            f"{table.url} begins with {rows[:60]!r}: its publisher has changed the format, which this "
                            "version of searchengine does not know."
                        )
                    yield rows[:end], offset == 0
                    offset += end


def _last_photo(rows: bytes) -> int:
    """Where the rows of the last photograph begin, of which more may follow; the last row may be cut off."""
    end = rows.rfind(b"\n")
    line = rows.rfind(b"\n", 0, max(end, 0)) + 1  # the last whole row
    id_ = rows[line : line + _ID]
    return 0 if rows.startswith(id_) else rows.find(b"\n" + id_) + 1


# -- the photographs ------------------------------------------------------------------------------------------------


def _fetch_photos(photos: Sequence[_Photo], to: Path, notes: _Notes, search: _Search) -> list[str]:
    """Download photographs into their folders; returns the ids of those that the server does not have."""
    (to / WORK / "photos").mkdir(exist_ok=True)
    search.progress.start(len(photos), what="photographs", unit="photographs")
    missing = []
    with ThreadPoolExecutor(_THREADS) as pool:  # map cancels what has not begun when one of them fails
        targets = [to / "images" / notes.path(photo.id) for photo in photos]
        arrived = pool.map(lambda photo, target: _fetch_photo(photo, to, target, search), photos, targets)
        for photo, has_arrived in zip(photos, arrived, strict=True):
            if not has_arrived:
                missing.append(photo.id)
            search.progress.advance()
    return missing


def _fetch_photo(photo: _Photo, to: Path, target: Path, search: _Search) -> bool:
    url = search.publisher.photos.format(split=photo.split, id=photo.id)
    try:
        file = search.client.fetch(Resource(url), to / WORK / "photos")
    except NotOnServerError:
        return False
    with file.open("rb") as opened:
        is_jpeg = opened.read(3) == b"\xff\xd8\xff"
    if not is_jpeg:
        file.unlink()
        raise DownloadError(f"{url} is not a JPEG. Is there a proxy in between? Run the same command again.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written: {error.strerror}. Move what is in the way elsewhere, or name another folder "
            "with --to."
        ) from error
    return True


def _check_space(to: Path, photos: int) -> None:
    free = shutil.disk_usage(to).free
    if free < photos * _BYTES:
        raise DownloadError(
            f"{photos:,} photographs need about {file_size(photos * _BYTES)} in {to}, and {file_size(free)} are "
            "free. Make room, ask for fewer, or name a folder on another disk with --to."
        )


def _write_labels(to: Path, notes: _Notes) -> Path | None:
    """``labels.csv``, where a photograph has several labels; else the folders say it."""
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
