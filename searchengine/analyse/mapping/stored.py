"""What was computed of an index and is kept in its folder: one .npz file each, keyed by the ids of the images.

Each file knows the extractor that it belongs to, and for each id a stamp of what the image held, so that it can tell
which images came, changed or went since. Ids survive compaction and rebuilding, and so do these files.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.mapping.reduction import Rows
from searchengine.errors import IndexDamagedError
from searchengine.files import output_file
from searchengine.index.local import LocalIndex

MAP = "map-places.npz"
GROUPS = "map-groups.npz"
_VERSION = 1
_COMMAND = {MAP: "searchengine map", GROUPS: "searchengine cluster"}


@dataclass(frozen=True, slots=True)
class Stored:
    """``about`` in words and numbers, ``arrays`` by name; ``ids`` is (n,) int64 and ``stamps`` (n,) uint64."""

    about: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    @property
    def ids(self) -> NDArray[np.int64]:
        """Which images it is about."""
        return self.arrays["ids"]

    @property
    def stamps(self) -> NDArray[np.uint64]:
        """What each of them held."""
        return self.arrays["stamps"]


@dataclass(frozen=True, slots=True)
class Freshness:
    """How an index has changed since: images ``new``, ``changed`` or ``gone``; ``other``: another extractor, or metric.

    Of a metric only that counts by which features are, or are not, brought to length 1 before they are compared.
    """

    new: int
    changed: int
    gone: int
    other: bool

    @property
    def current(self) -> bool:
        """Whether it is about just the images that there are."""
        return not (self.new or self.changed or self.gone or self.other)

    def sentence(self, name: str) -> str:
        """What has changed, and the command that takes it in; empty where nothing has."""
        if self.other:
            return f"It was made by another extractor or metric. Make it again: {_COMMAND[name]} --index-dir DIR"
        parts = [(self.new, "came"), (self.changed, "changed"), (self.gone, "went")]
        words = [f"{count} {word}" for count, word in parts if count]
        if not words:
            return ""
        return f"Since then, of the pictures {', '.join(words)}. Bring it up to date: {_COMMAND[name]} --index-dir DIR"


def save(folder: Path, name: str, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Path:
    """Write a file of an index; it is there whole or not at all. IndexingError where it cannot be written."""
    words = {"version": _VERSION, "made": datetime.now(UTC).isoformat(timespec="seconds"), **about}
    file = folder / name
    with output_file(file) as part, part.open("wb") as opened:  # np.savez would add an ending to a name
        np.savez_compressed(opened, **{"about": np.array(json.dumps(words)), **arrays})  # type: ignore[arg-type]
    return file


def load(folder: Path, name: str) -> Stored | None:
    """Read it, or None where there is none; IndexDamagedError where it cannot be used."""
    file = folder / name
    try:
        # opened here, because np.load lets go of what is no archive without closing it
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        about = json.loads(str(arrays.pop("about")))
        if about["version"] != _VERSION or len(arrays["ids"]) != len(arrays["stamps"]):
            raise ValueError("another version")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise IndexDamagedError(
            f"{file} cannot be read. Delete it and make it anew: {_COMMAND[name]} --index-dir {folder}"
        ) from error
    return Stored(about, arrays)


def stamps_of(index: LocalIndex, rows: Rows) -> NDArray[np.uint64]:
    """What each image holds, in a number: of its content, or of the feature itself where there is no file. (n,)"""
    stamps = np.zeros(len(rows), dtype=np.uint64)
    hashes = {record.id: record.content_hash for record in index.known(rows.ids.tolist())}
    for at, id_ in enumerate(rows.ids.tolist()):
        digest = hashes.get(id_)
        stamps[at] = int(digest[:16], 16) if digest else zlib.crc32(np.asarray(rows.matrix[rows.positions[at]]).data)
    return stamps


def basis(fingerprint: str, rows: Rows) -> dict[str, Any]:
    """What the features of an index are, and how they are compared: where that is another, nothing stored stands."""
    return {"fingerprint": fingerprint, "unit": rows.unit}


def same_basis(stored: Stored, fingerprint: str, rows: Rows) -> bool:
    """Whether it was made of such features, compared so; earlier files do not say the latter."""
    return {"unit": rows.unit, **stored.about}.items() >= basis(fingerprint, rows).items()


def freshness(stored: Stored, fingerprint: str, rows: Rows, stamps: NDArray[np.uint64]) -> Freshness:
    """Compare with the images that there are now, given by their rows and stamps."""
    ids = rows.ids
    _, here = standing(stored, ids, stamps)
    common = np.intersect1d(stored.ids, ids, assume_unique=True)
    return Freshness(
        new=len(ids) - len(common),
        changed=len(common) - len(here),
        gone=len(stored.ids) - len(common),
        other=not same_basis(stored, fingerprint, rows),
    )


def standing(
    stored: Stored, ids: NDArray[np.int64], stamps: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of the images that are as they were: (m,) in what is stored, and (m,) in what there is now."""
    _, there, here = np.intersect1d(stored.ids, ids, assume_unique=True, return_indices=True)
    same = stored.stamps[there] == stamps[here]
    return there[same], here[same]
