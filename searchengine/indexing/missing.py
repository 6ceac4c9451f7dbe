"""Removes images whose files are missing, unless that is probably not intended.

It probably is not if many are missing at once, if most images of one folder are missing or its disk is not mounted, or
if the files exist but are now left out by default.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from searchengine.errors import IndexingError
from searchengine.files import parse_json, path_from_text, path_to_text
from searchengine.images import LINKS_OUT
from searchengine.index.types import IndexedImage, Place
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.rebuild import OldIds
from searchengine.indexing.scan import Plan, joined, shown, with_parents

_MANY = 0.2  # if more than this share of all images is missing, they are kept without --prune
_MOST = 0.5  # if more than this share of the images of one folder is missing, they are kept without --prune-all
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class _Missing:
    """Absolute paths of missing files, by the probable reason."""

    gone: frozenset[bytes]  # deleted
    excluded: frozenset[bytes]  # left out by --exclude
    left_out: frozenset[bytes]  # left out by default
    absent: Mapping[bytes, frozenset[bytes]]  # by folder that seems not to be mounted


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Missing files that should perhaps be kept, the start of a sentence about them, and the flag that drops them."""

    files: frozenset[bytes]
    sentence: str
    flag: str


@dataclass(frozen=True, slots=True)
class Removal:
    """What to do about missing images at the end of a run."""

    ids: list[int]  # to remove
    remarks: list[str]  # for the user, about images that are kept
    mounts: str  # for the manifest: the folders where other file systems begin, or began before


class Absence:
    """Decides which missing images are removed.

    Args:
        plan: the plan of the run, whose walks have ended.
        known: the images of the index before the run.
        mounts: the folders where other file systems began when the last run ended.
        options: the options of the run.
    """

    def __init__(
        self, plan: Plan, known: Mapping[Place, IndexedImage], mounts: Collection[bytes], options: IndexingOptions
    ) -> None:
        self._plan = plan
        self._known = known
        self._options = options
        self._folders = {root.id: bytes(root.folder) for root, _ in plan.walks}
        self._walks = [(bytes(root.folder), walk) for root, walk in plan.walks]
        self._left_out = {joined(top, item.path) for top, walk in self._walks for item in walk.left_out}
        self._mounts = {joined(top, path) for top, walk in self._walks for path in walk.mounts}
        self._mounts_before = frozenset(mounts)

    def _sort(self, files: Collection[bytes], missing: Collection[bytes]) -> _Missing:
        """Sort the missing files of the index by the probable reason."""
        left_out, excluded, gone = set(), set(), set()
        for file in missing:
            if _is_in(file, self._left_out):
                left_out.add(file)
            elif any(_is_below(file, top) and walk.excludes(_within(file, top)) for top, walk in self._walks):
                excluded.add(file)
            else:
                gone.add(file)
        absent: dict[bytes, frozenset[bytes]] = {}
        if gone:
            present = set(files) - set(missing)
            for folder in sorted(self._mounts | self._mounts_before):
                lost = frozenset(file for file in gone if _is_below(file, folder))
                empty = not any(_is_below(file, folder) for file in present)
                if lost and (empty or folder not in self._mounts):
                    absent[folder] = lost
                    gone -= lost
            for top, _ in self._walks:
                lost = frozenset(file for file in gone if _is_below(file, top))
                if len(lost) > _MOST * sum(_is_below(file, top) for file in files):
                    absent[top] = lost
                    gone -= lost
        return _Missing(frozenset(gone), frozenset(excluded), frozenset(left_out), absent)

    def check_folders(self) -> None:
        """Raise IndexingError if an image folder is empty, but the index has images of it."""
        plan, known = self._plan, self._known
        if self._options.prune_all or not plan.missing:
            return
        missing = self._sort(self._files(known), self._files(plan.missing))
        roots_found = {candidate.root for candidate in plan.candidates} | {
            root for root, _ in known.keys() - plan.missing
        }
        for root, _ in plan.walks:
            lost = missing.absent.get(bytes(root.folder))
            if lost and root.id not in roots_found:
                raise IndexingError(
                    f"No image was found in {root.folder}, but the index has {len(lost)} of it. Is its disk mounted? "
                    "Nothing was changed. If they are really gone, add --prune-all."
                )

    def removal(self, missing: Mapping[Place, IndexedImage], total: int) -> Removal:
        """Decide about the known images that are missing after the run; the index has ``total`` images."""
        if not missing:
            return Removal([], [], mounts_to_json(self._mounts))
        ids = dict(zip(self._files(missing), (image.id for image in missing.values()), strict=True))
        by_reason = self._sort(self._files(self._known), ids.keys())
        doubts = self._doubts(by_reason, total)
        kept = frozenset[bytes]().union(*(doubt.files for doubt in doubts))
        remarks = [
            f"{doubt.sentence}. They were kept. To remove them, run the same command with {doubt.flag}."
            for doubt in doubts
        ]
        unmounted = set() if self._options.prune_all else self._mounts_before & by_reason.absent.keys()
        mounts = mounts_to_json(self._mounts | unmounted)
        return Removal([id_ for file, id_ in ids.items() if file not in kept], remarks, mounts)

    def check_rebuild(self, old: OldIds) -> None:
        """Raise IndexingError if a rebuild would drop images that should probably be kept."""
        for doubt in self._doubts(self._sort(old.files, old.missing), old.count):
            raise IndexingError(
                f"{doubt.sentence}, and a rebuild would drop them. Nothing was changed. To drop them, add {doubt.flag}."
            )

    def _doubts(self, missing: _Missing, total: int) -> list[_Doubt]:
        """Return the missing files, of ``total`` images, that should probably be kept."""
        doubts = []
        if not self._options.prune_all:
            for folder, files in missing.absent.items():
                unmounted = folder in self._mounts_before and folder not in self._mounts
                cause = "It was a mount point and no longer is: its disk" if unmounted else "Its disk"
                images = f"{len(files)} indexed image{'s' if len(files) > 1 else ''}"
                sentence = f"{shown(folder)} lacks {images}. {cause} may not be mounted"
                doubts.append(_Doubt(files, sentence, "--prune-all"))
        if self._options.may_prune:
            return doubts
        if missing.left_out:
            are = "images are" if len(missing.left_out) > 1 else "image is"
            sentence = (
                f"{len(missing.left_out)} indexed {are} now left out by default "
                f"({_examples(missing.left_out)}; see --no-default-excludes and --follow-links)"
            )
            doubts.append(_Doubt(missing.left_out, sentence, "--prune"))
        others = missing.gone | missing.excluded
        if len(others) > _MANY * total:
            how = "were not found, or were left out by --exclude" if missing.excluded else "were not found"
            sentence = f"{len(others)} of {total} indexed images (more than a fifth) {how}"
            doubts.append(_Doubt(others, sentence, "--prune"))
        return doubts

    def _files(self, places: Iterable[Place]) -> list[bytes]:
        return [joined(self._folders[root], path) for root, path in places]


def check_whole(old: OldIds) -> None:
    """Raise IndexingError if a rebuild found the old files, but could not read more than a fifth of them."""
    if old.unclaimed > _MANY * old.count:
        raise IndexingError(
            f"{old.unclaimed} of {old.count} indexed images (more than a fifth) disappeared before they could be read, "
            "or could not be read. The old index was not changed. If their disk was disconnected, reconnect it and run "
            "the same command again, which resumes; if they are really gone, add --prune."
        )


def left_out_remarks(plan: Plan) -> list[str]:
    """Return sentences about files left out by default: numbers by kind, examples, and the flag to include them."""
    items = [item for _, walk in plan.walks for item in walk.left_out]
    remarks = []
    for flag, chosen in (
        ("--no-default-excludes", [item for item in items if item.kind != LINKS_OUT]),
        ("--follow-links", [item for item in items if item.kind == LINKS_OUT]),
    ):
        if chosen:
            counts: dict[str, Counter[bool]] = defaultdict(Counter)
            for item in chosen:
                counts[item.kind][item.is_folder] += 1
            kinds = ", ".join(f"{kind} ({_folders_and_files(count)})" for kind, count in counts.items())
            examples = _examples(item.path for item in chosen)
            remarks.append(f"Left out: {kinds}: {examples}. To index them too, add {flag}.")
    return remarks


def _folders_and_files(counts: Counter[bool]) -> str:
    """Return a text such as "2 folders, 1 file", for counts of folders (True) and files (False)."""
    parts = ((counts[is_folder], name) for is_folder, name in ((True, "folder"), (False, "file")))
    return ", ".join(f"{count} {name}{'s' * (count != 1)}" for count, name in parts if count)


# -- mount points, as the manifest keeps them -------------------------------------------------------------------------


def mounts_to_json(mounts: Iterable[bytes]) -> str:
    """Turn absolute paths of folders into an entry of the manifest."""
    return json.dumps(sorted(path_to_text(Path(os.fsdecode(folder))) for folder in mounts))


def mounts_from_json(text: str | None) -> set[bytes]:
    """Return the inverse of ``mounts_to_json``; an empty set if the entry is missing or damaged."""
    try:
        return {bytes(path_from_text(str(folder))) for folder in parse_json(text or "[]")}
    except (ValueError, TypeError):
        return set()


# -- paths ------------------------------------------------------------------------------------------------------------


def _is_below(file: bytes, folder: bytes) -> bool:
    return file.startswith(folder.rstrip(b"/") + b"/")


def _within(file: bytes, folder: bytes) -> bytes:
    """Return the path of a file relative to a folder that contains it."""
    return file[len(folder.rstrip(b"/")) + 1 :]


def _is_in(file: bytes, folders: Container[bytes]) -> bool:
    """Return whether a file is one of the folders, or is inside one."""
    return any(folder in folders for folder in with_parents(file))


def _examples(paths: Iterable[bytes]) -> str:
    paths = sorted(paths)
    return ", ".join(map(shown, paths[:_EXAMPLES])) + (", ..." if len(paths) > _EXAMPLES else "")
