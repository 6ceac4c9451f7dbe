"""What is in the image folders, held against what the catalog knows: the plan of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from searchengine.errors import IndexingError
from searchengine.images import FoundFile, find
from searchengine.index.types import Known, Seen, Skipped

if TYPE_CHECKING:
    from searchengine.indexing.labels import Labels

Key = tuple[int, bytes]  # root, path


@dataclass(frozen=True, slots=True)
class Root:
    """One image folder; ``name`` tells it from the others where there are several."""

    id: int
    folder: Path
    name: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that must be read: it is new, or does not look as it did."""

    root: int
    path: bytes
    file: bytes
    known: Known | None
    labels: tuple[str, ...]

    @property
    def key(self) -> Key:
        """Root and path."""
        return self.root, self.path


@dataclass(slots=True)
class Plan:
    """What a run has to do."""

    candidates: list[Candidate] = field(default_factory=list)
    relabelled: list[Seen] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)  # known to be unusable, and not touched since
    missing: dict[Key, Known] = field(default_factory=dict)  # known, but not found
    forgotten: list[Key] = field(default_factory=list)  # skipped once, gone now
    unreadable: list[Skipped] = field(default_factory=list)  # folders and links that could not be looked into
    unchanged: int = 0
    total: int = 0


def check_roots(images: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The image folders as absolute paths.

    Raises:
        IndexingError: there is none, or one is missing, no folder or not to be read, or lies inside another.
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
            f"The image folder {folder} is not there. Is its disk mounted, and the name right? Nothing was changed."
        ) from error
    except NotADirectoryError as error:
        raise IndexingError(f"{folder} is not a folder. Give the folder that holds the images.") from error
    except OSError as error:
        raise IndexingError(f"The image folder {folder} cannot be read: {error.strerror}.") from error


def make_plan(
    roots: Sequence[Root],
    known: dict[Key, Known],
    skipped: dict[Key, Skipped],
    *,
    labels: Labels,
    exclude: Sequence[str] = (),
    skip: Sequence[Path] = (),
    limit: int | None = None,
) -> Plan:
    """Walk the folders and sort what is found; ``limit``: look at so many files only, and find nothing missing."""
    plan = Plan()
    missing = dict(known)
    gone = dict(skipped)
    blocked: list[tuple[int, bytes]] = []
    for root in roots:
        base = os.fsencode(root.folder)
        for found in find(root.folder, exclude=exclude, skip=skip):
            if not isinstance(found, FoundFile):
                blocked.append((root.id, found.path))
                plan.unreadable.append(Skipped(root.id, found.path, found.reason, None, None))
                continue
            if limit is not None and plan.total >= limit:
                break
            plan.total += 1
            key = (root.id, found.path)
            image, refused = missing.pop(key, None), gone.pop(key, None)
            wanted = labels.of(root, found.path, several=len(roots) > 1)
            if image is not None and _as_it_was(image, found):
                if image.labels == wanted:
                    plan.unchanged += 1
                else:
                    plan.relabelled.append(Seen(image.id, *key, image.state, wanted))
            elif image is None and refused is not None and _refused_as_it_is(refused, found):
                plan.skipped.append(refused)
            else:
                file = os.path.join(base, found.path)  # noqa: PTH118  (bytes)
                plan.candidates.append(Candidate(*key, file, image, wanted))
    if limit is None:
        plan.missing = {key: image for key, image in missing.items() if not _within(key, blocked)}
        plan.forgotten = [key for key in gone if not _within(key, blocked)]
    return plan


def readable(name: str) -> str:
    """A name as people can read it, whatever its bytes."""
    return os.fsencode(name).decode("utf-8", "replace")


def label_of(root: Root, path: bytes, *, several: bool) -> tuple[str, ...]:
    """The name of the folder that a file lies in; a file right in the only image folder has no label."""
    parent = os.path.dirname(path)  # noqa: PTH120  (bytes)
    if parent:
        return (os.path.basename(parent).decode("utf-8", "replace"),)  # noqa: PTH119
    return (readable(root.folder.name) or root.name,) if several else ()


def _as_it_was(image: Known, found: FoundFile) -> bool:
    state = image.state
    return state.settled and (state.size, state.mtime_ns) == (found.size, found.mtime_ns)


def _refused_as_it_is(refused: Skipped, found: FoundFile) -> bool:
    return (refused.size, refused.mtime_ns) == (found.size, found.mtime_ns)


def _within(key: Key, blocked: Sequence[tuple[int, bytes]]) -> bool:
    """Whether a file is, or lies in, what could not be read: it may well be there."""
    return any(key[0] == root and (key[1] == path or key[1].startswith(path + b"/")) for root, path in blocked)
