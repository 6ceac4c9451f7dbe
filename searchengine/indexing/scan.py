"""The image folders compared with what the catalog knows: the plan of a run."""

from __future__ import annotations

import unicodedata
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace

from searchengine.images import FoundFile, Walk
from searchengine.index.types import ImageUpdate, IndexedImage, Place, Skipped
from searchengine.indexing.labels import Labels
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.roots import Root, joined


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that must be read: it is new or seems changed; ``renamed``: it was known by another name."""

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
    seen: list[ImageUpdate] = field(default_factory=list)  # unchanged, with other labels, or ctime was not known
    skipped: list[Skipped] = field(default_factory=list)  # known to be unusable, and not touched since
    without_shot: list[tuple[int, bytes]] = field(default_factory=list)  # unchanged: id, file; see IndexedImage
    missing: dict[Place, IndexedImage] = field(default_factory=dict)  # known, but not found
    forgotten: list[Place] = field(default_factory=list)  # skipped once, gone now
    unreadable: list[Skipped] = field(default_factory=list)  # folders and links that could not be looked into
    unchanged: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Before:
    """What an index holds before a run: its images, and the files that could not be used.

    ``retry``: all of these files are to be read again.
    """

    known: dict[Place, IndexedImage] = field(default_factory=dict)
    skipped: dict[Place, Skipped] = field(default_factory=dict)
    retry: bool = False


def make_plan(
    walks: Sequence[tuple[Root, Walk]],
    labels: Labels,
    before: Before | None = None,
    options: IndexingOptions | None = None,
) -> Plan:
    """Walk the folders and sort the files.

    Args:
        walks: each image folder, and how its files are found.
        labels: says which labels each file has.
        before: what is in the index already.
        options: of the run; with a ``limit``, no file counts as missing.
    """
    before, options = before or Before(), options or IndexingOptions()
    plan = Plan(walks=[*walks])
    files = _found(plan, options.limit)
    plan.total = len(files)
    missing, gone = dict(before.known), dict(before.skipped)
    labels_of = labels.of([(root, file.path) for root, file in files], several=len(walks) > 1)
    for (root, file), wanted in zip(files, labels_of, strict=True):
        place, absolute = (root.id, file.path), joined(bytes(root.folder), file.path)
        image, refused = missing.pop(place, None), gone.pop(place, None)
        if image is not None and not options.check_content and _is_unchanged(image, file):
            plan.unchanged += 1
            if not image.has_shot:
                plan.without_shot.append((image.id, absolute))
            if image.labels != wanted or image.state.ctime_ns is None:
                plan.seen.append(ImageUpdate(image.id, *place, replace(image.state, ctime_ns=file.ctime_ns), wanted))
        elif image is not None or refused is None or options.check_content or before.retry or _differs(refused, file):
            plan.candidates.append(Candidate(*place, absolute, image, wanted))
        else:
            plan.skipped.append(refused)
    if options.limit is None:
        _recognise_renamed(plan.candidates, missing)
        blocked = {(file.root, file.path) for file in plan.unreadable}
        plan.missing = {place: image for place, image in missing.items() if not _lies_in(place, blocked)}
        plan.forgotten = [place for place in gone if not _lies_in(place, blocked)]
    return plan


def _found(plan: Plan, limit: int | None) -> list[tuple[Root, FoundFile]]:
    """The files of the walks, of each no more than are left of a limit; the plan takes what cannot be looked into."""
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


def _is_unchanged(image: IndexedImage, file: FoundFile) -> bool:
    state = image.state
    return (
        state.settled
        and (state.size, state.mtime_ns) == (file.size, file.mtime_ns)
        and state.ctime_ns in (file.ctime_ns, None)
    )


def _differs(refused: Skipped, file: FoundFile) -> bool:
    same_times = (refused.size, refused.mtime_ns) == (file.size, file.mtime_ns)
    return not same_times or refused.ctime_ns not in (file.ctime_ns, None)


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


def _lies_in(place: Place, folders: Container[Place]) -> bool:
    """Whether a file is one of them or in one of them: it may exist, as they could not be read."""
    root, path = place
    return any((root, folder) in folders for folder in with_parents(path))


def with_parents(path: bytes) -> Iterator[bytes]:
    """``a/b/c`` -> ``a/b/c``, ``a/b``, ``a``; then the empty path."""
    while path:
        yield path
        path = path.rpartition(b"/")[0]
    yield path
