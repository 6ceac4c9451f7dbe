"""Sources of labels: the folders of images, a CSV file, COCO annotations, or none."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from searchengine.extractors.spec import ExtractorSpec
from searchengine.files import path_from_text, path_to_text
from searchengine.indexing.label_files import LabelFile, as_text, read_label_file
from searchengine.indexing.scan import Labels, Root, shown

FOLDER, NONE = "folder", "none"
_LABEL_PHOTOS = (
    "Index again with --labels folder (each image is labelled with the name of its folder) or --labels FILE (a CSV "
    "file with the columns path and label)."
)
_LABEL_FEATURES = (
    "Import the features again, into another --index-dir, with searchengine import --labels, which takes a column of "
    "their file, or a text file with one label per line."
)
_UPLOADED = re.compile("^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file


def how_to_label(spec: ExtractorSpec) -> str:
    """Return advice on how to label an index of photos, or of imported features."""
    return _LABEL_FEATURES if spec.is_imported else _LABEL_PHOTOS


def labels_from(choice: str) -> Labels:
    """Return the source for "folder", "none", or a file. Raises the errors of ``read_label_file``."""
    if choice == FOLDER:
        return FolderLabels()
    if choice == NONE:
        return NoLabels()
    file = path_from_text(choice).expanduser().absolute()
    return FileLabels(file, read_label_file(file))


class FolderLabels(Labels):
    """Labels each image with the name of its folder."""

    recorded = FOLDER

    def of(self, files: Sequence[tuple[Root, bytes]], *, several: bool) -> list[tuple[str, ...]]:
        """Return the name of each file's folder; a file at the top of the only image folder has no label."""
        return [_folder_label(root, path, several=several) for root, path in files]


class NoLabels(Labels):
    """No image has a label."""

    recorded = NONE

    def of(self, files: Sequence[tuple[Root, bytes]], *, several: bool) -> list[tuple[str, ...]]:
        return [()] * len(files)


class FileLabels(Labels):
    """Labels from a file, by path: relative to the image folder, starting with the name of that folder, or absolute.

    A name without a folder means every file of that name, as in COCO annotations. A path that is spelt differently
    (other case, composed or decomposed accents, backslashes, no extension, other parent folders) matches if it can mean
    only one file.
    """

    def __init__(self, file: Path, content: LabelFile) -> None:
        self.file = file
        self._labels = content.labels
        self._unusable = content.unusable
        self._used: set[str] = set()
        self._without = self._looked_up = 0
        folded = [(_folded(name), name) for name in content.labels]
        self._by_name = _unambiguous(folded, self._labels)
        self._some_without_ending = any("." not in name.rsplit("/", 1)[-1] for name, _ in folded)

    @property
    def recorded(self) -> str:
        """The absolute path of the file, as ``path_to_text`` writes it."""
        return path_to_text(self.file)

    def of(self, files: Sequence[tuple[Root, bytes]], *, several: bool) -> list[tuple[str, ...]]:
        names = [self._name_of(root, _text(path)) for root, path in files]
        self._used.update(name for name in names if name is not None)
        unnamed = [i for i, name in enumerate(names) if name is None]
        if unnamed and len(self._used) < len(self._labels):
            others = self._names_with_other_folders([_folded(_text(files[i][1])) for i in unnamed])
            self._used.update(name for name in others if name is not None)
            for i, name in zip(unnamed, others, strict=True):
                names[i] = name
        self._looked_up += len(files)
        self._without += names.count(None)
        return [() if name is None else self._labels[name] for name in names]

    def _name_of(self, root: Root, relative: str) -> str | None:
        """Return the name that the label file has for a file, if any."""
        spellings = (relative, f"{root.name}/{relative}", f"{_text(bytes(root.folder))}/{relative}")
        for spelling in spellings:
            if spelling in self._labels:
                return spelling
        whole = _folded(spellings[2])
        for spelling in (_folded(relative), _folded(spellings[1]), whole, *_suffixes(_folded(relative))):
            name = self._by_name.get(spelling)
            if name is None and self._some_without_ending:
                name = self._by_name.get(os.path.splitext(spelling)[0])  # noqa: PTH122  (text, millions of times)
            if name is not None:
                return name
        return None

    def _names_with_other_folders(self, paths: list[str]) -> list[str | None]:
        """Match unnamed files to names with other parent folders, where no other name or file has the same ending."""
        ends = [
            (end, name)
            for name in self._labels
            if name not in self._used
            for end in (*_suffixes(_folded(name)), _UPLOADED.sub("", _folded(name).rsplit("/", 1)[-1]))
        ]
        by_end = _unambiguous(ends, self._labels)
        files_with = Counter(end for path in paths for end in {path, *_suffixes(path)})
        names: list[str | None] = []
        for path in paths:
            end = next((end for end in (path, *_suffixes(path)) if end in by_end), None)
            names.append(by_end[end] if end is not None and files_with[end] == 1 else None)
        return names

    def remark(self) -> str | None:
        """Report images without a label, labels without an image, and unusable rows."""
        unused = len(self._labels) - len(self._used)
        remarks = []
        if self._without:
            remarks.append(
                f"{self._without} of {self._looked_up} files are not named in {self.file}, and have no label"
            )
        if unused:
            missing = [name for name in self._labels if name not in self._used][:3]
            remarks.append(
                f"{unused} of the {len(self._labels)} files named in {self.file} were not found "
                f"({', '.join(map(as_text, missing))}{', ...' if unused > 3 else ''})"
            )
        if self._unusable.counts:
            remarks.append(f"Ignored in {self.file}: {self._unusable}")
        return ". ".join(remarks) + "." if remarks else None


def _folder_label(root: Root, path: bytes, *, several: bool) -> tuple[str, ...]:
    parent = os.path.dirname(path)  # noqa: PTH120  (bytes)
    if parent:
        return (os.path.basename(parent).decode("utf-8", "replace"),)  # noqa: PTH119
    return (shown(root.folder.name) or root.name,) if several else ()


def _text(path: bytes) -> str:
    """Return a path as text, whatever the locale."""
    return path.decode("utf-8", "surrogateescape")


def _folded(path: str) -> str:
    """Return a path without what programs change in it: case, the form of accents, and the kind of slash."""
    return unicodedata.normalize("NFC", as_text(path)).casefold().replace("\\", "/")


def _suffixes(path: str) -> Iterator[str]:
    """Yield ``b/c`` and ``c`` for ``a/b/c``; nothing for a name without folders."""
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _unambiguous(spellings: Iterable[tuple[str, str]], labels: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Map each spelling to its name, leaving out spellings of names with different labels."""
    by_spelling: dict[str, str | None] = {}
    for spelling, name in spellings:
        other = by_spelling.setdefault(spelling, name)
        if other is not None and labels[other] != labels[name]:
            by_spelling[spelling] = None
    return {spelling: name for spelling, name in by_spelling.items() if name is not None}
