"""A folder of query images -> features and labels, made by the extractor of the index."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import QueryError
from searchengine.extractors import Extractor
from searchengine.images import FoundFile, find
from searchengine.indexing.reading import Reading, read_ahead
from searchengine.indexing.roots import Root, check_folder, label_of
from searchengine.indexing.scan import Candidate
from searchengine.progress import QUIET, Progress

_BATCH = 32


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Images that could be read, a line each: ``features`` (q, d) float32; ``content`` is the hex hash of the bytes.

    ``paths`` are for people, relative to the folder; ``unreadable`` files could not be used.
    """

    folder: Path
    paths: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[tuple[str, ...], ...]
    content: tuple[str, ...]
    features: NDArray[np.float32]
    unreadable: int = 0


def find_queries(folder: Path) -> list[Candidate]:
    """The files to read in a folder of query images; the label of each is the name of the folder that it lies in.

    QueryError if it holds nothing; IndexingError if there is no such folder.
    """
    folder = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100  (links stay links)
    if not folder.exists():
        raise QueryError(
            f"The query folder {folder} is not there. --queries takes a folder with a subfolder for each label."
        )
    check_folder(folder)
    root = Root(0, folder, folder.name)
    base = os.fsencode(folder)
    candidates = [
        Candidate(0, file.path, os.path.join(base, file.path), None, label_of(root, file.path, several=False))  # noqa: PTH118
        for file in find(folder)
        if isinstance(file, FoundFile)
    ]
    if not candidates:
        raise QueryError(f"The query folder {folder} holds no image.")
    return candidates


def read_queries(folder: Path, extractor: Extractor, progress: Progress | None = None) -> QuerySet:
    """Read and embed every image of a folder; what cannot be read is named and left out.

    Raises:
        QueryError: the folder holds no image that can be used.
        IndexingError: it cannot be listed.
    """
    progress = progress or QUIET
    kept: list[Reading] = []
    rows: list[NDArray[np.float32]] = []
    waiting: list[NDArray[np.uint8]] = []
    unreadable = 0

    def embed() -> None:
        if waiting:
            rows.append(extractor.embed(np.stack(waiting)))  # (b, h, w, 3) uint8 -> (b, d) float32
            waiting.clear()

    candidates = find_queries(folder)
    progress.start(len(candidates), 0)
    for reading in read_ahead(candidates, extractor.preprocess, (), threads=os.cpu_count() or 1, ahead=2 * _BATCH):
        if reading.picture is None:
            unreadable += 1
            reason = reading.reason or "The file has gone."
            progress.skipped(reading.candidate.path.decode("utf-8", "replace"), reason)
        else:
            kept.append(Reading(reading.candidate, reading.state, reading.content_hash))  # without its pixels
            waiting.append(reading.picture.pixels)
            if len(waiting) == _BATCH:
                embed()
        progress.advance(1)
    embed()
    if not kept:
        raise QueryError(f"None of the {unreadable} files in the query folder {folder} can be used as an image.")
    return QuerySet(
        folder=folder,
        paths=tuple(reading.candidate.path.decode("utf-8", "replace") for reading in kept),
        files=tuple(Path(os.fsdecode(reading.candidate.file)) for reading in kept),
        labels=tuple(reading.candidate.labels for reading in kept),
        content=tuple((reading.content_hash or b"").hex() for reading in kept),
        features=np.concatenate(rows),
        unreadable=unreadable,
    )
