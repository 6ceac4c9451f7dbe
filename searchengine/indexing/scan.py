"""The image folders compared with what the catalog knows: the plan of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from searchengine.images import FoundFile, find
from searchengine.index.types import Known, Place, Seen, Skipped
from searchengine.indexing.labels import Labels
from searchengine.indexing.roots import Root


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that must be read: it is new, or does not look as it did."""

    root: int
    path: bytes
    file: bytes
    known: Known | None
    labels: tuple[str, ...]

    @property
    def place(self) -> Place:
        """Root and path."""
        return self.root, self.path


@dataclass(slots=True)
class Plan:
    """What a run has to do."""

    candidates: list[Candidate] = field(default_factory=list)
    relabelled: list[Seen] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)  # known to be unusable, and not touched since
    missing: dict[Place, Known] = field(default_factory=dict)  # known, but not found
    forgotten: list[Place] = field(default_factory=list)  # skipped once, gone now
    unreadable: list[Skipped] = field(default_factory=list)  # folders and links that could not be looked into
    unchanged: int = 0
    total: int = 0


def make_plan(
    roots: Sequence[Root],
    known: dict[Place, Known],
    skipped: dict[Place, Skipped],
    *,
    labels: Labels,
    exclude: Sequence[str] = (),
    skip: Sequence[Path] = (),
    limit: int | None = None,
) -> Plan:
    """Walk the folders and sort the files; with ``limit``, only so many, and then none counts as missing."""
    plan = Plan()
    missing = dict(known)
    gone = dict(skipped)
    blocked: list[Place] = []
    for root in roots:
        base = os.fsencode(root.folder)
        for file in find(root.folder, exclude=exclude, skip=skip):
            if not isinstance(file, FoundFile):
                blocked.append((root.id, file.path))
                plan.unreadable.append(Skipped(root.id, file.path, file.reason, None, None))
                continue
            if limit is not None and plan.total >= limit:
                break
            plan.total += 1
            place = (root.id, file.path)
            image, refused = missing.pop(place, None), gone.pop(place, None)
            wanted = labels.of(root, file.path, several=len(roots) > 1)
            if image is not None and _is_unchanged(image, file):
                if image.labels == wanted:
                    plan.unchanged += 1
                else:
                    plan.relabelled.append(Seen(image.id, *place, image.state, wanted))
            elif image is None and refused is not None and _is_still_refused(refused, file):
                plan.skipped.append(refused)
            else:
                absolute = os.path.join(base, file.path)  # noqa: PTH118  (bytes)
                plan.candidates.append(Candidate(*place, absolute, image, wanted))
    if limit is None:
        plan.missing = {place: image for place, image in missing.items() if not _within(place, blocked)}
        plan.forgotten = [place for place in gone if not _within(place, blocked)]
    return plan


def _is_unchanged(image: Known, file: FoundFile) -> bool:
    state = image.state
    return state.settled and (state.size, state.mtime_ns) == (file.size, file.mtime_ns)


def _is_still_refused(refused: Skipped, file: FoundFile) -> bool:
    return (refused.size, refused.mtime_ns) == (file.size, file.mtime_ns)


def _within(place: Place, blocked: Sequence[Place]) -> bool:
    """Whether a file is, or lies in, what could not be read: it may well be there."""
    root, path = place
    return any(root == other and (path == folder or path.startswith(folder + b"/")) for other, folder in blocked)
