"""The image folders of an index. Another folder than it was made from stops the run: nothing is "deleted"."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from searchengine.errors import IndexingError


@dataclass(frozen=True, slots=True)
class Root:
    """One image folder; ``name`` distinguishes it from the others."""

    id: int
    folder: Path
    name: str


def check_roots(images: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The image folders as absolute paths.

    Raises:
        IndexingError: there is none, or one is missing, no folder, unreadable, or inside another.
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
    """IndexingError unless it is a folder that can be listed."""
    try:
        with os.scandir(folder):
            return
    except FileNotFoundError as error:
        raise IndexingError(
            f"The image folder {folder} does not exist. Is its disk mounted, and the name right? Nothing was changed."
        ) from error
    except NotADirectoryError as error:
        raise IndexingError(f"{folder} is not a folder. Give the folder that holds the images.") from error
    except OSError as error:
        raise IndexingError(f"The image folder {folder} cannot be read: {error.strerror}.") from error


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
        if len(recorded) != len(folders):
            raise IndexingError(
                f"The index is of {len(recorded)} image folders, and {len(folders)} were given: with --relocate, give "
                "each one's new place, in the order " + ", ".join(os.fsdecode(path) for _, path, _ in recorded) + "."
            )
        moved: list[Root] = []
        for (id_, _, _), folder in zip(recorded, folders, strict=True):
            moved.append(Root(id_, folder, _free_name(folder, moved)))
        return moved
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


def _free_name(folder: Path, roots: Sequence[Root]) -> str:
    """The folder's own name as people can read it, with a number if another folder has it too."""
    taken = {root.name for root in roots}
    name = readable(folder.name) or "images"
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name}-{number}"
    return free


def readable(name: str) -> str:
    """A name as people can read it, whatever its bytes."""
    return os.fsencode(name).decode("utf-8", "replace")


def label_of(root: Root, path: bytes, *, several: bool) -> tuple[str, ...]:
    """The name of the folder that a file lies in; a file right in the only image folder has no label."""
    parent = os.path.dirname(path)  # noqa: PTH120  (bytes)
    if parent:
        return (os.path.basename(parent).decode("utf-8", "replace"),)  # noqa: PTH119
    return (readable(root.folder.name) or root.name,) if several else ()
