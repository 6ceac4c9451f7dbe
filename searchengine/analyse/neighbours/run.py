"""One run: blocks of neighbours -> a table and, if asked for, a contact sheet for each image."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from searchengine.analyse.neighbours.sheets import Sheet, remove_sheets, write_sheet
from searchengine.analyse.neighbours.tables import FORMATS, csv_table, parquet_table
from searchengine.analyse.neighbours.whole import Block, whole_set
from searchengine.errors import IndexingError, QueryError
from searchengine.files import check_output_folder, output_errors, output_file
from searchengine.index.local import LocalIndex
from searchengine.index.metrics import check_metric, score
from searchengine.index.types import ImageRecord
from searchengine.progress import QUIET, Progress


@dataclass(frozen=True, slots=True)
class NeighboursOptions:
    """``metric`` None: that of the index. ``format``: "csv" or "parquet"."""

    k: int = 10
    metric: str | None = None
    format: str = "csv"
    pictures: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """``table`` is the file; ``pictures``: sheets that were drawn; the others were there already.

    ``missing``: images whose picture was not found or could not be read; ``removed``: sheets of images that the index
    holds no more.
    """

    table: str
    images: int
    neighbours: int
    metric: str
    pictures: int
    missing: int = 0
    removed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def write_neighbours(
    index: LocalIndex, out: Path, options: NeighboursOptions | None = None, progress: Progress | None = None
) -> Written:
    """Write the k nearest others of every image to ``out``: ``neighbours.csv``, and ``pictures/<id>.jpg``.

    The table is there when it is whole, or not at all. Of a run that was stopped the sheets are kept, and the same
    command draws only those that are missing, show something else, or lack a picture that is there now. Sheets of
    images that the index holds no more are deleted.

    Raises:
        QueryError: k is below 1, or the index has fewer than two images.
        UnknownNameError: no such metric.
        IndexingError: the folder cannot be written to, no PyArrow for Parquet.
    """
    options, progress = options or NeighboursOptions(), progress or QUIET
    if options.k < 1:
        raise QueryError(f"k must be a whole number of at least 1, not {options.k}.")
    if options.format not in FORMATS:
        raise QueryError(f"A table is written as {' or '.join(FORMATS)}, not as {options.format!r}.")
    state = index.state()
    metric = check_metric(options.metric or state.metric)
    if state.count < 2:
        raise QueryError(f"The index holds {state.count} images: there is nothing that could be a neighbour.")
    records = _records(index, state.ids[state.live].tolist())
    table = out / f"neighbours.{options.format}"
    write_table = csv_table if options.format == "csv" else parquet_table
    drawn = removed = 0
    missing: set[int] = set()
    near = min(options.k, state.count - 1)
    if near < options.k:
        progress.say(f"The index holds {state.count} images, so each has {near} neighbours, not {options.k}.")
    progress.start(state.count, 0)
    with output_file(table) as part, ExitStack() as stack:
        worth = _score(metric, normalized=state.normalized)
        write = stack.enter_context(write_table(part, records, worth))
        draw = stack.enter_context(_Sheets(out / "pictures", records, progress)) if options.pictures else None
        for block in whole_set(state, options.k, metric):
            write(block)
            if draw is not None:
                for sheet in draw(block):
                    drawn += sheet.drawn
                    missing |= sheet.missing
            else:
                progress.advance(len(block.ids))
        if draw is not None:
            removed = draw.remove_others()
    if missing:
        progress.say(_without_pictures(records, missing))
    return Written(str(table), state.count, near, metric, drawn, len(missing), removed)


def _without_pictures(records: Mapping[int, ImageRecord], missing: Collection[int]) -> str:
    named = sum(records[id_].file is not None for id_ in missing)
    if not named:
        return (
            f"{len(missing)} images have no picture, only features, so their places are empty. Import the features "
            "with --paths and --images to see them."
        )
    return (
        f"{len(missing)} of {len(records)} pictures were not found or cannot be read: their places are empty, but on "
        "sheets that have shown them before, which are kept. If the photos have moved, say where they are with "
        "--images-dir, or with searchengine index --relocate, and give this command again."
    )


def _records(index: LocalIndex, ids: list[int]) -> dict[int, ImageRecord]:
    known = {record.id: record for record in index.known(ids)}
    for id_ in ids:
        if id_ not in known:  # removed since the run began: its row still stands in the state that is searched
            known[id_] = ImageRecord(id_, f"#{id_}", None, (), None, None, None, None, None, None)
    return known


def _score(metric: str, *, normalized: bool) -> Callable[[float], float]:
    return lambda distance: score(metric, distance, normalized=normalized)


class _Sheets:
    """Draws the sheets of a block, by several threads."""

    def __init__(self, folder: Path, records: dict[int, ImageRecord], progress: Progress) -> None:
        check_output_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IndexingError(f"{folder} cannot be made: {error.strerror}.") from error
        self.folder = folder
        self._records = records
        self._progress = progress
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sheet")

    def __call__(self, block: Block) -> Iterator[Sheet]:
        """What came of each."""
        rows = zip(block.ids.tolist(), block.neighbours.tolist(), block.distances.tolist(), strict=True)
        for sheet in self._pool.map(self._draw, rows):
            yield sheet
            self._progress.advance(1)

    def remove_others(self) -> int:
        """Delete the sheets of images that are not in the index; returns how many."""
        with output_errors(self.folder):
            return remove_sheets(self.folder, self._records)

    def _draw(self, row: tuple[int, list[int], list[float]]) -> Sheet:
        id_, neighbours, distances = row
        near = [(self._records[other], distance) for other, distance in zip(neighbours, distances, strict=True)]
        file = self.folder / f"{id_}.jpg"
        with output_errors(file):
            return write_sheet(file, self._records[id_], near)

    def __enter__(self) -> _Sheets:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
