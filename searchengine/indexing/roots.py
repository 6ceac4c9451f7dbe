"""The image folders of an index. If others are given, the run stops, and no image counts as deleted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError
from searchengine.images.finding import folder_errors
from searchengine.index.types import IndexedImage, Place, content_hash

_SAMPLE = 20  # images of each folder that are looked for in its new place


@dataclass(frozen=True, slots=True)
class Root:
    """One image folder; ``name`` distinguishes it from the others."""

    id: int
    folder: Path
    name: str


def check_roots(images: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The image folders as absolute paths.

    Raises:
        IndexingError: none is given, or one is missing, not a folder, unreadable, or inside another.
    """
    if not images:
        raise IndexingError("No image folder is given.")
    folders: list[Path] = []
    for image_folder in images:
        folder = Path(os.path.abspath(os.path.expanduser(image_folder)))  # noqa: PTH100, PTH111  (links stay links)
        check_folder(folder)
        if folder not in folders:
            folders.append(folder)
    for folder in folders:
        for other in folders:
            if folder != other and folder.is_relative_to(other):
                raise IndexingError(f"{folder} lies inside {other}, which is enough. Give one of them.")
    return folders


def check_folder(folder: Path) -> None:
    """IndexingError unless the folder can be listed."""
    with folder_errors(folder), os.scandir(folder):
        pass


def assign_roots(
    recorded: Sequence[tuple[int, bytes, str]], folders: Sequence[Path], *, relocate: bool = False
) -> list[Root]:
    """Compare the given folders with the recorded ones; new ones are added, none may be left out.

    Args:
        recorded: id, path and name of each image folder of the index; empty for a new one.
        folders: the image folders given, absolute.
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


def _moved(recorded: Sequence[tuple[int, bytes, str]], folders: Sequence[Path]) -> list[Root]:
    """The recorded folders at their new places, in the same order."""
    if len(recorded) != len(folders):
        raise IndexingError(
            f"The index is of {len(recorded)} image folders, and {len(folders)} were given: with --relocate, give each "
            "one's new place, in the order " + ", ".join(os.fsdecode(path) for _, path, _ in recorded) + "."
        )
    moved: list[Root] = []
    for (id_, _, _), folder in zip(recorded, folders, strict=True):
        moved.append(Root(id_, folder, _free_name(folder, moved)))
    return moved


def matching_order(
    recorded: Sequence[tuple[int, bytes, str]], folders: Sequence[Path], known: Mapping[Place, IndexedImage]
) -> list[Path]:
    """The folders in the order of the recorded ones, matched by a sample of their images.

    The given order stays unless another matches more files. IndexingError if a folder has none of the sampled files.
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


def after_exchange(
    recorded: Sequence[tuple[int, bytes, str]], known: Mapping[Place, IndexedImage]
) -> list[Path] | None:
    """The recorded folders in the order of their present content, if they have been swapped; else None.

    They are read only if most of the sampled files of one are gone or have other times.
    """
    folders, samples = [Path(os.fsdecode(path)) for _, path, _ in recorded], _samples(recorded, known)
    if len(recorded) < 2 or not any(
        2 * sum(map(partial(_has_changed, folder, known), sample)) > len(sample)
        for folder, sample in zip(folders, samples, strict=True)
    ):
        return None
    _, order = _best_order(samples, folders, known)
    return [folders[j] for j in order] if order != sorted(order) else None


def _samples(recorded: Sequence[tuple[int, bytes, str]], known: Mapping[Place, IndexedImage]) -> list[list[Place]]:
    """Some of the images of each folder."""
    places = [[place for place in known if place[0] == id_] for id_, _, _ in recorded]
    return [of_folder[:: len(of_folder) // _SAMPLE + 1] for of_folder in places]


def _best_order(
    samples: Sequence[Sequence[Place]], folders: Sequence[Path], known: Mapping[Place, IndexedImage]
) -> tuple[NDArray[np.int64], list[int]]:
    """(n, m) how many files of each of n samples are in each of m folders; and the best folder for each sample."""
    present = np.zeros((len(samples), len(folders)), dtype=int)  # sampled files of each that a folder has, at all
    same = np.zeros_like(present)  # and with the same content
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
    """Whether a file is gone, or its times or size differ from those in the index."""
    try:
        info = os.stat(joined(bytes(folder), place[1]))  # noqa: PTH116  (bytes)
    except OSError:
        return True
    state = known[place].state
    return (info.st_size, info.st_mtime_ns) != (state.size, state.mtime_ns) or (
        state.ctime_ns is not None and info.st_ctime_ns != state.ctime_ns
    )


def _digest(file: bytes, size: int) -> bytes | None:
    """The content hash of a file; b"" if its size differs, without reading it; None if it does not exist."""
    try:
        with open(file, "rb") as opened:  # noqa: PTH123  (a path of bytes)
            return content_hash(opened.read()) if os.fstat(opened.fileno()).st_size == size else b""
    except OSError:
        return None


def _free_name(folder: Path, roots: Sequence[Root]) -> str:
    """The readable name of a folder, with a number if another folder has the same."""
    taken = {root.name for root in roots}
    name = readable(folder.name) or "images"
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name}-{number}"
    return free


def joined(folder: bytes, path: bytes) -> bytes:
    """The absolute path of a file or folder within an image folder; b"" stands for that folder itself."""
    return folder.rstrip(b"/") + b"/" + path if path else folder


def readable(name: str) -> str:
    """A readable name, whatever its bytes."""
    return os.fsencode(name).decode("utf-8", "replace")


def label_of(root: Root, path: bytes, *, several: bool) -> tuple[str, ...]:
    """The name of the folder of a file; a file at the top of the only image folder has no label."""
    parent = os.path.dirname(path)  # noqa: PTH120  (bytes)
    if parent:
        return (os.path.basename(parent).decode("utf-8", "replace"),)  # noqa: PTH119
    return (readable(root.folder.name) or root.name,) if several else ()


def shown(path: bytes) -> str:
    """A path for people."""
    return path.decode("utf-8", "replace")
