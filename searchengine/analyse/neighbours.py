"""The nearest neighbours of every image of an index, as a table and as contact sheets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.sheets import Entry, Sheet, SheetFolder
from searchengine.errors import QueryError
from searchengine.files import csv_writer, output_file
from searchengine.index.approximate import ApproximateSearcher
from searchengine.index.exact import Searcher
from searchengine.index.metrics import check_metric, score
from searchengine.index.protocol import Index
from searchengine.index.state import NO_IMAGE, State
from searchengine.index.types import ImageRecord
from searchengine.progress import QUIET, Progress

COLUMNS = ("id", "path", "label", "rank", "neighbour", "neighbour_path", "neighbour_label", "distance", "score")
FORMATS = ("csv", "parquet")
_QUERIES = 256  # in a block: large enough for BLAS, small enough to show progress
_SHEET_COLUMNS = 6

Records = Mapping[int, ImageRecord]
Score = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class NeighboursOptions:
    """``metric`` None is the metric of the index; ``format`` is "csv" or "parquet"; ``pictures``: draw sheets."""

    k: int = 10
    metric: str | None = None
    format: str = "csv"
    pictures: bool = False


@dataclass(frozen=True, slots=True)
class NeighboursSummary:
    """The result of a run.

    Attributes:
        table: the file of the table.
        images: the number of images.
        neighbours: the number of neighbours of each.
        metric: the metric used.
        pictures: the number of sheets drawn in this run.
        missing: the number of images whose picture is missing or unreadable.
        removed: the number of sheets deleted because their image is no longer in the index.
    """

    table: str
    images: int
    neighbours: int
    metric: str
    pictures: int
    missing: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """A block of images in the order of their ids, with the nearest other images of each, nearest first.

    ``ids`` is (b,) int64, ``neighbours`` (b, k) int64 ids, ``distances`` (b, k) float64.
    """

    ids: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    distances: NDArray[np.float64]

    def lines(self) -> Iterator[tuple[int, list[int], list[float]]]:
        """Iterate over the images: id, ids of the neighbours, and their distances."""
        return zip(self.ids.tolist(), self.neighbours.tolist(), self.distances.tolist(), strict=True)


def write_neighbours(
    index: Index, out: Path, options: NeighboursOptions | None = None, progress: Progress = QUIET
) -> NeighboursSummary:
    """Write the k nearest neighbours of every image to ``out``: ``neighbours.csv``, and ``pictures/<id>.jpg``.

    The table appears once it is complete. The sheets of an interrupted run are kept, and the same command draws only
    those that are missing, outdated, or lack a picture that exists now. Sheets of images that are no longer in the
    index are deleted.

    Raises:
        QueryError: k is below 1, or the index has fewer than two images.
        UnknownNameError: there is no such metric.
        IndexingError: the folder is not writable, or PyArrow is missing for Parquet.
    """
    options = options or NeighboursOptions()
    if options.k < 1:
        raise QueryError(f"k must be a whole number of at least 1, not {options.k}.")
    if options.format not in FORMATS:
        raise QueryError(f"The format of the table must be {' or '.join(FORMATS)}, not {options.format!r}.")
    state = index.state()
    metric = check_metric(options.metric or state.metric)
    if state.count < 2:
        raise QueryError(f"The index holds {state.count} images. Neighbours need at least two.")
    k = min(options.k, state.count - 1)
    if k < options.k:
        progress.say(f"The index holds {state.count} images, so each has {k} neighbours, not {options.k}.")
    searcher = index.whole_set_searcher(state, metric, k, progress)
    table = out / f"neighbours.{options.format}"
    progress.start(state.count)
    drawn, missing, removed, have_files = 0, frozenset[int](), 0, False
    with output_file(table) as part:
        write_table = _csv_table if options.format == "csv" else _parquet_table
        with write_table(part, partial(score, metric, normalized=state.normalized)) as write:
            sheets = SheetFolder(out / "pictures") if options.pictures else None
            for block in whole_set(state, k, searcher):
                records = _records(index, block)
                write(block, records)
                if sheets is None:
                    progress.advance(len(block.ids))
                    continue
                count, lacking = sheets.draw([_sheet(records, *line) for line in block.lines()], progress)
                drawn, missing = drawn + count, missing | lacking
                have_files |= any(records[id_].file is not None for id_ in lacking)
        if sheets is not None:
            removed = sheets.remove_others({f"{id_}.jpg" for id_ in state.ids[state.live].tolist()})
    if missing:
        progress.say(_without_pictures(len(missing), state.count, have_files=have_files))
    return NeighboursSummary(str(table), state.count, k, metric, drawn, len(missing), removed)


def whole_set(state: State, k: int, searcher: Searcher | ApproximateSearcher | None = None) -> Iterator[Block]:
    """Find the k nearest other images of every image; ties are ordered by id.

    Memory grows linearly with the number of rows, and so does time if the searcher is approximate.

    Args:
        state: the rows, from ``Index.state``.
        k: at least 1; limited to the number of other images.
        searcher: searches these rows, from ``Index.whole_set_searcher``; None for exact search by the index's metric.
    """
    live = state.live_by_id
    k = min(k, len(live) - 1)
    searcher = _without_surplus_copies(state, searcher or state.searcher(), k + 1)
    for start in range(0, len(live), _QUERIES):
        rows = live[start : start + _QUERIES]
        # (b, d) against (n, d) -> b of k + 1, usually with the query itself
        results = searcher.nearest(np.asarray(state.rows[rows]), k + 1)
        neighbours = np.empty((len(rows), k), dtype=np.int64)
        distances = np.empty((len(rows), k), dtype=np.float64)
        for i, (row, nearest) in enumerate(zip(rows, results, strict=True)):
            others = np.flatnonzero(nearest.positions != row)[:k]
            neighbours[i] = state.ids[nearest.positions[others]]
            distances[i] = nearest.distances[others]
        yield Block(state.ids[rows], neighbours, distances)


def _without_surplus_copies(
    state: State, searcher: Searcher | ApproximateSearcher, count: int
) -> Searcher | ApproximateSearcher:
    """Return a searcher with the same ``count`` nearest rows for any query, but faster if thousands of rows are equal.

    Equal rows have equal distances, so only the first ``count`` of them, by id, can be among the nearest.
    """
    copies: Counter[bytes] = Counter()
    kept = state.ids != NO_IMAGE
    # Equal rows have equal lengths.
    _, group, sizes = np.unique(state.squared_norms, return_inverse=True, return_counts=True)
    for row in state.live_by_id[sizes[group[state.live_by_id]] > count]:
        key = blake2b((state.rows[row] + np.float32(0.0)).tobytes(), digest_size=16).digest()  # -0.0 is 0.0
        copies[key] += 1
        kept[row] = copies[key] <= count
    return searcher.among(kept) if max(copies.values(), default=0) > count else searcher


def _records(index: Index, block: Block) -> dict[int, ImageRecord]:
    """Return the records of all images of a block, by id."""
    ids = np.union1d(block.ids, block.neighbours).tolist()
    known = {record.id: record for record in index.known(ids)}
    return {id_: known.get(id_) or ImageRecord.removed(id_) for id_ in ids}


# -- tables -----------------------------------------------------------------------------------------------------------


def _columns(block: Block, records: Records, score_of: Score) -> tuple[list[Any], ...]:
    """Return the ``COLUMNS`` for the b * k pairs of a block."""
    count, k = block.neighbours.shape
    ids = np.repeat(block.ids, k).tolist()  # (b,) -> (b * k,)
    others, distances = block.neighbours.reshape(-1).tolist(), block.distances.reshape(-1).tolist()
    queries, neighbours = [records[id_] for id_ in ids], [records[id_] for id_ in others]
    return (
        ids,
        [record.path for record in queries],
        [record.label for record in queries],
        [*range(1, k + 1)] * count,
        others,
        [record.path for record in neighbours],
        [record.label for record in neighbours],
        distances,
        [score_of(distance) for distance in distances],
    )


@contextmanager
def _csv_table(file: Path, score_of: Score) -> Iterator[Callable[[Block, Records], None]]:
    """Write blocks to a CSV file, one row per pair, with all digits of distances and scores."""
    with file.open("w", encoding="utf-8", newline="", errors="replace") as opened:
        write_row = csv_writer(opened)
        write_row(COLUMNS)

        def write(block: Block, records: Records) -> None:
            for row in zip(*_columns(block, records, score_of), strict=True):
                write_row(row)

        yield write


@contextmanager
def _parquet_table(file: Path, score_of: Score) -> Iterator[Callable[[Block, Records], None]]:
    """Write blocks to a Parquet file, one row per pair; MissingPackageError without PyArrow."""
    from searchengine.exchange.binary_files import pyarrow

    arrow = pyarrow()
    text = arrow.dictionary(arrow.int32(), arrow.string())
    types = (arrow.int64(), text, text, arrow.int32(), arrow.int64(), text, text, arrow.float64(), arrow.float64())
    schema = arrow.schema(list(zip(COLUMNS, types, strict=True)))
    with arrow.parquet.ParquetWriter(file, schema) as writer:

        def write(block: Block, records: Records) -> None:
            arrays = [
                arrow.array(values, arrow.string()).dictionary_encode() if kind == text else arrow.array(values, kind)
                for values, kind in zip(_columns(block, records, score_of), types, strict=True)
            ]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))

        yield write


# -- contact sheets ---------------------------------------------------------------------------------------------------


def _sheet(records: Records, id_: int, neighbours: list[int], distances: list[float]) -> Sheet:
    """Lay out a query, framed, and its neighbours."""
    query = records[id_]
    entries = [Entry(query, ("query", _name(query)), framed=True)]
    for rank, (neighbour, distance) in enumerate(zip(neighbours, distances, strict=True), 1):
        record = records[neighbour]
        entries.append(Entry(record, (f"{rank} · {_number(distance)}", _name(record))))
    return Sheet(f"{id_}.jpg", entries, _SHEET_COLUMNS)


def _name(record: ImageRecord) -> str:
    return ", ".join(record.labels) or record.path.rsplit("/", 1)[-1]


def _number(distance: float) -> str:
    return f"{distance:.4f}" if abs(distance) < 1000 else f"{distance:.4g}"


def _without_pictures(missing: int, images: int, *, have_files: bool) -> str:
    """Explain why sheets have empty places."""
    if not have_files:
        return (
            f"{missing} images have only features and no picture, so their places are empty. To see them, import the "
            "features with --paths and --images."
        )
    return (
        f"{missing} of {images} pictures are missing or cannot be read. Their places are empty, except on existing "
        "sheets, which are kept. If the photos have moved, name their folder with --images-dir, or with searchengine "
        "index --relocate, and run this command again."
    )
