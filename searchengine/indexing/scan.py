"""Compares the image folders with the index: which folders are the same, and which of their files need work.

If a folder of the index is not among the given ones, the run stops, so none of its images counts as deleted.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError
from searchengine.images import FoundFile, Walk
from searchengine.images.finding import folder_errors
from searchengine.index.types import FileState, ImageFolder, ImageUpdate, IndexedImage, Place, Skipped, content_hash
from searchengine.indexing.options import IndexingOptions

_SAMPLE = 20  # images of each folder that are looked for in its new place


# -- image folders ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Root:
    """One image folder; ``name`` distinguishes it from the others."""

    id: int
    folder: Path
    name: str


def check_roots(images: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the image folders as absolute paths.

    Raises:
        IndexingError: no folder is given, or one is missing, not a folder, unreadable, or inside another.
    """
    if not images:
        raise IndexingError("No image folder is given.")
    folders: list[Path] = []
    for image_folder in images:
        folder = Path(os.path.abspath(os.path.expanduser(image_folder)))  # noqa: PTH100, PTH111  (links stay links)
        check_folder(folder)
        if folder not in folders:
            folders.append(folder)
    for folder, other in permutations(folders, 2):
        if folder.is_relative_to(other):
            raise IndexingError(f"{folder} is inside {other}, which already includes it. Give only one of them.")
    return folders


def check_folder(folder: Path) -> None:
    """Raise IndexingError unless the folder can be listed."""
    with folder_errors(folder), os.scandir(folder):
        pass


def assign_roots(recorded: Sequence[ImageFolder], folders: Sequence[Path], *, relocate: bool = False) -> list[Root]:
    """Match the given folders with the recorded ones. New folders are added; none may be left out.

    Args:
        recorded: the image folders of the index; empty for a new index.
        folders: the given image folders, absolute.
        relocate: the recorded folders are now at the given places, in the same order.

    Raises:
        IndexingError: a recorded folder is not among the given ones.
    """
    if relocate and recorded:
        return _moved(recorded, folders)
    by_path = {os.fsdecode(path): Root(id_, Path(os.fsdecode(path)), name) for id_, path, name in recorded}
    given = {str(folder) for folder in folders}
    left_out = [path for path in by_path if path not in given]
    if left_out:
        raise IndexingError(
            f"The index is of {', '.join(by_path)}, and {', '.join(left_out)} "
            f"{'was' if len(left_out) == 1 else 'were'} not given. To add a folder, name all of them. If one has "
            "moved, add --relocate. To leave one out, add --rebuild --prune. For other images, choose another "
            "--index-dir."
        )
    roots = list(by_path.values())
    next_id = max((root.id for root in roots), default=0) + 1
    for folder in folders:
        if str(folder) not in by_path:
            roots.append(Root(next_id, folder, _free_name(folder, roots)))
            next_id += 1
    return roots


def _moved(recorded: Sequence[ImageFolder], folders: Sequence[Path]) -> list[Root]:
    """Return the recorded folders at their new places, in the same order."""
    if len(recorded) != len(folders):
        raise IndexingError(
            f"The index is of {len(recorded)} image folders, but {len(folders)} were given. With --relocate, give the "
            f"new place of each, in the order {', '.join(os.fsdecode(path) for _, path, _ in recorded)}."
        )
    moved: list[Root] = []
    for (id_, _, _), folder in zip(recorded, folders, strict=True):
        moved.append(Root(id_, folder, _free_name(folder, moved)))
    return moved


def matching_order(
    recorded: Sequence[ImageFolder], folders: Sequence[Path], known: Mapping[Place, IndexedImage]
) -> list[Path]:
    """Return the folders in the order of the recorded ones, matched by a sample of their images.

    The given order is kept unless another order matches more files. Raises IndexingError if a folder has none of the
    sampled files.
    """
    samples = _samples(recorded, known)
    present, order = _best_order(samples, folders, known)
    for i, j in enumerate(order):
        if samples[i] and not present[i, j]:
            raise IndexingError(
                f"None of the images of {os.fsdecode(recorded[i][1])} is in {folders[j]}: "
                f"{len(samples[i])} were looked for. Is it the right folder? Nothing was changed."
            )
    return [folders[j] for j in order]


def after_exchange(recorded: Sequence[ImageFolder], known: Mapping[Place, IndexedImage]) -> list[Path] | None:
    """Return the recorded folders in the order of their present content if they were swapped, else None.

    Files are read only if most of the sampled files of one folder are gone or have other times.
    """
    folders, samples = [Path(os.fsdecode(path)) for _, path, _ in recorded], _samples(recorded, known)
    if len(recorded) < 2 or not any(
        2 * sum(map(partial(_has_changed, folder, known), sample)) > len(sample)
        for folder, sample in zip(folders, samples, strict=True)
    ):
        return None
    _, order = _best_order(samples, folders, known)
    return [folders[j] for j in order] if order != sorted(order) else None


def _samples(recorded: Sequence[ImageFolder], known: Mapping[Place, IndexedImage]) -> list[list[Place]]:
    """Return a sample of the images of each folder."""
    places = [[place for place in known if place[0] == id_] for id_, _, _ in recorded]
    return [of_folder[:: len(of_folder) // _SAMPLE + 1] for of_folder in places]


def _best_order(
    samples: Sequence[Sequence[Place]], folders: Sequence[Path], known: Mapping[Place, IndexedImage]
) -> tuple[NDArray[np.int64], list[int]]:
    """Count the files of each of n samples that are in each of m folders: (n, m); and find the best folder for each."""
    present = np.zeros((len(samples), len(folders)), dtype=int)  # files of that name
    same = np.zeros_like(present)  # files of that name and content
    for i, sample in enumerate(samples):
        for j, folder in enumerate(folders):
            for place in sample:
                digest = _digest(joined(bytes(folder), place[1]), known[place].state.size)
                present[i, j] += digest is not None
                same[i, j] += digest == known[place].content_hash
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    order = list(range(len(folders)))
    best = [int(j) for j in linear_sum_assignment(same, maximize=True)[1]]
    if same[range(len(best)), best].sum() > np.trace(same):
        order = best
    return present, order


def _has_changed(folder: Path, known: Mapping[Place, IndexedImage], place: Place) -> bool:
    """Return whether a file is gone, or its times or size differ from those in the index."""
    try:
        info = os.stat(joined(bytes(folder), place[1]))  # noqa: PTH116  (bytes)
    except OSError:
        return True
    file = FoundFile(place[1], info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return not _has_times_of(known[place].state, file)


def _digest(file: bytes, size: int) -> bytes | None:
    """Return the content hash of a file; b"", without reading it, if its size differs; None if it does not exist."""
    try:
        with open(file, "rb") as opened:  # noqa: PTH123  (a path of bytes)
            return content_hash(opened.read()) if os.fstat(opened.fileno()).st_size == size else b""
    except OSError:
        return None


def _free_name(folder: Path, roots: Sequence[Root]) -> str:
    """Return the readable name of a folder, with a number if another folder has the same name."""
    taken = {root.name for root in roots}
    name = shown(folder.name) or "images"
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name}-{number}"
    return free


# -- paths ------------------------------------------------------------------------------------------------------------


def joined(folder: bytes, path: bytes) -> bytes:
    """Return the absolute path of a file or folder within an image folder; b"" stands for that folder itself."""
    return folder.rstrip(b"/") + b"/" + path if path else folder


def shown(path: bytes | str) -> str:
    """Return a path for people, with undecodable bytes replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def with_parents(path: bytes) -> Iterator[bytes]:
    """Yield ``a/b/c``, ``a/b``, ``a`` and the empty path, for ``a/b/c``."""
    while path:
        yield path
        path = path.rpartition(b"/")[0]
    yield path


# -- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that must be read because it is new or seems changed; ``renamed`` if it was known by another name."""

    root: int
    path: bytes
    file: bytes
    known: IndexedImage | None
    labels: tuple[str, ...]
    renamed: bool = False

    @property
    def place(self) -> Place:
        """Root and path."""
        return self.root, self.path


@dataclass(slots=True)
class Plan:
    """The work of a run."""

    walks: list[tuple[Root, Walk]] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    seen: list[ImageUpdate] = field(default_factory=list)  # unchanged, but with other labels, or ctime was not known
    skipped: list[Skipped] = field(default_factory=list)  # unusable last time, and unchanged since
    without_shot: list[tuple[int, bytes]] = field(default_factory=list)  # unchanged: id, file; see IndexedImage
    missing: dict[Place, IndexedImage] = field(default_factory=dict)  # indexed, but not found
    forgotten: list[Place] = field(default_factory=list)  # skipped once, gone now
    unreadable: list[Skipped] = field(default_factory=list)  # folders and links that cannot be read
    unchanged: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class IndexContents:
    """The images and the skipped files of an index before a run; with ``retry``, skipped files are read again."""

    images: dict[Place, IndexedImage] = field(default_factory=dict)
    skipped: dict[Place, Skipped] = field(default_factory=dict)
    retry: bool = False


class Labels(Protocol):
    """A source of labels; ``indexing.labels`` has its implementations."""

    @property
    def recorded(self) -> str:
        """The entry of the manifest, from which ``labels_from`` makes the source again."""
        ...

    def of(self, files: Sequence[tuple[Root, bytes]], *, several: bool) -> list[tuple[str, ...]]:
        """Return the labels of each file, the most important first.

        ``several``: the index has more than one image folder.
        """
        ...

    def remark(self) -> str | None:
        """Return what the user should know once all files have been looked up, if anything."""
        return None


def make_plan(
    walks: Sequence[tuple[Root, Walk]],
    labels: Labels,
    contents: IndexContents | None = None,
    options: IndexingOptions | None = None,
) -> Plan:
    """Walk the folders and decide which files need work.

    Args:
        walks: each image folder, with the walk that finds its files.
        labels: the labels of the files.
        contents: what the index holds already.
        options: the options of the run. With a ``limit``, no file counts as missing.
    """
    contents, options = contents or IndexContents(), options or IndexingOptions()
    plan = Plan(walks=[*walks])
    files = _walked(plan, options.limit)
    plan.total = len(files)
    missing, gone = dict(contents.images), dict(contents.skipped)
    labels_of_files = labels.of([(root, file.path) for root, file in files], several=len(walks) > 1)
    for (root, file), wanted in zip(files, labels_of_files, strict=True):
        place, absolute = (root.id, file.path), joined(bytes(root.folder), file.path)
        image, refused = missing.pop(place, None), gone.pop(place, None)
        recorded = refused if image is None else image.state
        is_same = recorded is not None and not options.check_content and _has_times_of(recorded, file)
        if image is not None and is_same and image.state.settled:
            plan.unchanged += 1
            if not image.has_shot:
                plan.without_shot.append((image.id, absolute))
            if image.labels != wanted or image.state.ctime_ns is None:
                plan.seen.append(ImageUpdate(image.id, *place, replace(image.state, ctime_ns=file.ctime_ns), wanted))
        elif image is None and refused is not None and is_same and not contents.retry:
            plan.skipped.append(refused)
        else:
            plan.candidates.append(Candidate(*place, absolute, image, wanted))
    if options.limit is None:
        _recognise_renamed(plan.candidates, missing)
        blocked = {(file.root, file.path) for file in plan.unreadable}
        plan.missing = {place: image for place, image in missing.items() if not _is_blocked(place, blocked)}
        plan.forgotten = [place for place in gone if not _is_blocked(place, blocked)]
    return plan


def _walked(plan: Plan, limit: int | None) -> list[tuple[Root, FoundFile]]:
    """Return the files of all walks, up to the limit, and add to the plan what cannot be read."""
    files: list[tuple[Root, FoundFile]] = []
    for root, walk in plan.walks:
        for file in walk:
            if not isinstance(file, FoundFile):
                plan.unreadable.append(Skipped(root.id, file.path, file.reason, None, None))
                continue
            if limit is not None and len(files) >= limit:
                break
            files.append((root, file))
    return files


def _has_times_of(recorded: FileState | Skipped, file: FoundFile) -> bool:
    """Return whether a file has the recorded size and times. An old record has no ctime."""
    same = (recorded.size, recorded.mtime_ns) == (file.size, file.mtime_ns)
    return same and recorded.ctime_ns in (file.ctime_ns, None)


def _recognise_renamed(candidates: list[Candidate], missing: dict[Place, IndexedImage]) -> None:
    """Treat a new file as a missing one if their names differ only in case or in the form of accents."""
    by_name = {(root, _folded(path)): (root, path) for root, path in missing}
    for i, candidate in enumerate(candidates):
        if candidate.known is None and by_name:
            place = by_name.pop((candidate.root, _folded(candidate.path)), None)
            if place is not None:
                candidates[i] = replace(candidate, known=missing.pop(place), renamed=True)


def _folded(path: bytes) -> str:
    return unicodedata.normalize("NFC", path.decode("utf-8", "surrogateescape")).casefold()


def _is_blocked(place: Place, unreadable: Container[Place]) -> bool:
    """Return whether a file is, or is inside, something unreadable, so that it may still exist."""
    root, path = place
    return any((root, folder) in unreadable for folder in with_parents(path))
