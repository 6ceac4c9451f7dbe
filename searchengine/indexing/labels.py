"""Where the labels of images come from: their folders, a CSV file, COCO annotations, or nowhere."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from searchengine.errors import IndexingError
from searchengine.extractors.spec import ExtractorSpec
from searchengine.files import parse_json, unguarded
from searchengine.indexing.roots import Root, label_of

FOLDER, NONE = "folder", "none"
_PATHS = ("path", "paths", "file", "filename", "file_name", "image", "image_path")
_COCO = (
    *("categories", "images", "annotations"),
    *("id", "name", "file_name", "image_id", "category_id", "area", "bbox"),
)
_LABELS = ("label", "labels", "class", "category")
_LABEL_PHOTOS = (
    "Index again with --labels folder (the name of the folder is the label) or --labels FILE, a CSV file with the "
    "columns path and label."
)
_LABEL_FEATURES = (
    "Import the features again, into another --index-dir, with searchengine import --labels: a column of their file, "
    "or a text file with a label a line."
)
_NO_TEXT = re.compile("[\ud800-\udfff]")


def how_to_label(spec: ExtractorSpec) -> str:
    """What to do about an index without labels, for a person: of photos, or of ready-made features."""
    return _LABEL_FEATURES if spec.is_imported else _LABEL_PHOTOS


class Labels(Protocol):
    """Says which labels an image has."""

    @property
    def recorded(self) -> str:
        """What the manifest keeps, and ``labels_from`` takes."""
        ...

    def of(self, root: Root, path: bytes, *, several: bool) -> tuple[str, ...]:
        """The labels of one file, the most important first; ``several``: the index has more than one image folder."""
        ...

    def remark(self) -> str | None:
        """What the user should know, once all files have been looked up."""
        ...


def labels_from(choice: str) -> Labels:
    """ "folder", "none", or a file: CSV with the columns path and label, or COCO annotations (JSON).

    IndexingError for a file that is missing or neither.
    """
    if choice == FOLDER:
        return FolderLabels()
    if choice == NONE:
        return NoLabels()
    file = Path(choice).expanduser().absolute()
    if not file.is_file():
        raise IndexingError(
            f"There is no labels file {file}. Give --labels folder, --labels none, a CSV file with the columns path "
            "and label, or COCO annotations (instances_*.json)."
        )
    try:
        if file.suffix.lower() == ".json":
            with file.open("rb") as opened:
                return FileLabels(file, _of_coco(parse_json(opened.read(), object_hook=_needed)))
        with file.open("rb") as opened:
            if opened.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise ValueError("it is UTF-16 text; save it as CSV UTF-8")
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            return FileLabels(file, _of_csv(text))
    except OSError as error:
        raise IndexingError(f"The labels file {file} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise IndexingError(
            f"The labels file {file} is neither a CSV file with the columns path and label nor COCO annotations: "
            f"{reason}."
        ) from error


class FolderLabels:
    """The name of the folder that a file lies in."""

    recorded = FOLDER

    def of(self, root: Root, path: bytes, *, several: bool) -> tuple[str, ...]:
        """See ``roots.label_of``."""
        return label_of(root, path, several=several)

    def remark(self) -> str | None:
        """Nothing."""
        return None


class NoLabels:
    """No image has a label."""

    recorded = NONE

    def of(self, root: Root, path: bytes, *, several: bool) -> tuple[str, ...]:
        """None."""
        return ()

    def remark(self) -> str | None:
        """Nothing."""
        return None


class FileLabels:
    """What a file says, by path: relative to the image folder, with that folder's name before it, or absolute.

    A name without a folder stands for every file of that name, as COCO's annotations have it.
    """

    def __init__(self, file: Path, labels: Mapping[str, tuple[str, ...]]) -> None:
        self.file = file
        self._labels = labels
        self._used: set[str] = set()
        self._asked = 0
        self._without = 0

    @property
    def recorded(self) -> str:
        """The file, absolute."""
        return str(self.file)

    def of(self, root: Root, path: bytes, *, several: bool) -> tuple[str, ...]:
        """The labels that the file names, or none."""
        self._asked += 1
        relative = os.fsdecode(path)
        for name in (relative, f"{root.name}/{relative}", str(root.folder / relative), relative.rsplit("/", 1)[-1]):
            if name in self._labels:
                self._used.add(name)
                return self._labels[name]
        self._without += 1
        return ()

    def remark(self) -> str | None:
        """What the images or the labels file lack."""
        unused = len(self._labels) - len(self._used)
        remarks = []
        if self._without:
            remarks.append(f"{self._without} of {self._asked} files are not named in {self.file}, and have no label")
        if unused:
            remarks.append(f"{unused} of the {len(self._labels)} files named in {self.file} were not found")
        return ". ".join(remarks) + "." if remarks else None


def _of_csv(lines: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """path -> labels; a path in several rows has several labels, in that order."""
    rows = ((i, row) for i, row in enumerate(csv.reader(lines), start=1) if any(cell.strip() for cell in row))
    first, head = next(rows, (0, []))
    names = [cell.strip().lower() for cell in head]
    at_path = next((names.index(name) for name in _PATHS if name in names), None)
    at_label = next((names.index(name) for name in _LABELS if name in names), None)
    labels_of: dict[str, list[str]] = {}
    pending = []
    if at_path is None or at_label is None:
        if len(head) != 2 or at_path == 0:
            raise ValueError(f"its first line is {','.join(head)[:80]!r}")
        at_path, at_label = 0, 1  # no line of names
        pending = [(first, head)]
    for number, row in (*pending, *rows):
        if len(row) != len(head):
            raise ValueError(f"row {number} has {len(row)} columns, where the first has {len(head)}")
        labels = labels_of.setdefault(_plain(unguarded(row[at_path])), [])
        label = unguarded(row[at_label]).strip()
        if _NO_TEXT.search(label):  # a path may be so, as the file system has it
            raise ValueError(f"the label in row {number} is not UTF-8 text; save the file as CSV UTF-8")
        if label and label not in labels:
            labels.append(label)
    return {path: tuple(labels) for path, labels in labels_of.items()}


def _needed(entry: dict[str, Any]) -> dict[str, Any]:
    """What counts of an entry of COCO's. The outlines of all objects of a large set would take gigabytes."""
    return {name: entry[name] for name in _COCO if name in entry}


def _of_coco(annotations: Any) -> dict[str, tuple[str, ...]]:
    """file_name -> names of categories, the one that covers the largest area of the image first."""
    if annotations["images"] and not annotations.get("annotations"):
        raise ValueError("it has no annotations, so no image would have a label. Give instances_*.json")
    names = {category["id"]: _readable(str(category["name"])) for category in annotations["categories"]}
    areas: dict[Any, dict[str, float]] = {image["id"]: {} for image in annotations["images"]}
    for annotation in annotations["annotations"]:
        covered = areas[annotation["image_id"]]
        name = names[annotation["category_id"]]
        box = annotation.get("bbox") or (0, 0, 0, 0)
        covered[name] = covered.get(name, 0.0) + float(annotation.get("area", box[2] * box[3]))
    return {
        _plain(str(image["file_name"])): tuple(sorted(areas[image["id"]], key=lambda n: (-areas[image["id"]][n], n)))
        for image in annotations["images"]
    }


def _readable(label: str) -> str:
    """What was no text, as bytes of another encoding than UTF-8 are, becomes a mark that it was not."""
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", label)


def _plain(path: str) -> str:
    """``./a//b.jpg`` and ``a\\b.jpg`` -> ``a/b.jpg``."""
    path = path.strip()
    return str(PurePosixPath(path if "/" in path else path.replace("\\", "/")))
