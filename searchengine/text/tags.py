"""Tags: the classes of ImageNet that the network of an index sees in its pictures. What it sees need not be there.

They are computed at the end of each indexing run, for the pictures that are new, and kept in the folder of the index,
where filters find them: see ``columns.TAGS``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import timestamp
from searchengine.errors import SearchEngineError
from searchengine.extractors.spec import ExtractorSpec
from searchengine.index.columns import TAGS, TagSheet
from searchengine.index.local import LocalIndex
from searchengine.index.protocol import Index
from searchengine.index.types import ImageRecord
from searchengine.text.classes import class_titles
from searchengine.text.seen import keep_seen
from searchengine.text.words import Recognised, Words, head_of

_ROWS = 4096  # pictures whose tags are computed at once


class Recogniser(Protocol):
    """See ``Words.recognised``."""

    def recognised(self, features: NDArray[np.float32], /) -> Recognised: ...


@dataclass(frozen=True, slots=True)
class Tag:
    """A class of ImageNet that the network sees in a picture; it may be wrong."""

    name: str
    probability: float


def tags_of(words: Recogniser, index: Index, ids: Sequence[int] | None = None) -> list[tuple[ImageRecord, list[Tag]]]:
    """The images in which the network sees something, each with its tags: of the ids, or of all; UnknownImageError."""
    now = index.state()
    rows = now.live
    if ids is not None:
        wanted = [record.id for record in index.records(ids)]
        rows = rows[np.isin(now.ids[rows], wanted)]
    titles = class_titles()
    tags: dict[int, list[Tag]] = {}
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        for row, number, probability in zip(*words.recognised(np.asarray(now.rows[block])), strict=True):
            tags.setdefault(int(now.ids[block[row]]), []).append(Tag(titles[number], float(probability)))
    return [(record, tags[record.id]) for record in index.known(list(tags))]


def keep_words(folder: Path, spec: ExtractorSpec, weights: Path | None) -> None:
    """Have the folder of an index keep what words need of its network, and the tags of its images, as far as there are
    any: at the end of a run, which it must not fail. ``weights`` is the file that the user named.
    """
    with contextlib.suppress(SearchEngineError):
        words = Words(head_of(folder, spec, weights))
        with closing(LocalIndex.open(folder)) as index:
            keep_tags(words, index)
            keep_seen(words, index)


def keep_tags(words: Words, index: Index) -> None:
    """Compute the tags of the images that have none yet, and keep them. IndexingError, MissingPackageError."""
    now = index.state()
    titles = np.array(class_titles())
    first, ids, tags = 0, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.str_)
    kept = TAGS.load(index.folder)
    if kept is not None and kept.sheet.computed_from == (now.fingerprint, now.features_file):
        if kept.sheet.rows == len(now.ids):
            return
        first = kept.sheet.rows
        same = ~np.isin(kept.arrays["ids"], now.ids[first:])  # the others have other content now
        ids, tags = kept.arrays["ids"][same], np.array(kept.sheet.names, dtype=np.str_)[kept.arrays["tags"][same]]
    for start in range(first, len(now.ids), _ROWS):
        block = slice(start, min(start + _ROWS, len(now.ids)))
        rows, classes, _ = words.recognised(np.asarray(now.rows[block]))
        ids = np.concatenate([ids, now.ids[block][rows]])
        tags = np.concatenate([tags, titles[classes]])
    there = np.isin(ids, now.ids[now.live])
    names, numbers = np.unique(tags[there], return_inverse=True)
    sheet = TagSheet(1, timestamp(), now.fingerprint, now.features_file, len(now.ids), list(map(str, names)))
    TAGS.save(index.folder, sheet, {"ids": ids[there], "tags": numbers.astype(np.int32)})


def known_tags(index: Index) -> dict[int, list[str]]:
    """The tags that are kept, by the id of the image; none where they are of another extractor."""
    kept = TAGS.load(index.folder)
    tags: dict[int, list[str]] = {}
    if kept is not None and kept.sheet.fingerprint == index.fingerprint:
        pairs: tuple[NDArray[np.int64], NDArray[np.int32]] = (kept.arrays["ids"], kept.arrays["tags"])
        for id_, number in zip(*(array.tolist() for array in pairs), strict=True):
            tags.setdefault(id_, []).append(kept.sheet.names[number])
    return tags
