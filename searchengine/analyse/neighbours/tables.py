"""Neighbours as a table, a row for each pair: CSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from searchengine.analyse.neighbours.whole import Block
from searchengine.index.types import ImageRecord

COLUMNS = ("id", "path", "label", "rank", "neighbour", "neighbour_path", "neighbour_label", "distance", "score")
FORMATS = ("csv", "parquet")

Records = Mapping[int, ImageRecord]
Score = Callable[[float], float]
Write = Callable[[Block], None]


@contextmanager
def csv_table(file: Path, records: Records, score: Score) -> Iterator[Write]:
    """Write blocks to a CSV file; distances and scores with all their digits."""
    with file.open("w", encoding="utf-8", newline="", errors="replace") as opened:
        out = csv.writer(opened, lineterminator="\n")
        out.writerow(COLUMNS)

        def write(block: Block) -> None:
            for id_, neighbours, distances in zip(
                block.ids.tolist(), block.neighbours.tolist(), block.distances.tolist(), strict=True
            ):
                query = records[id_]
                for rank, (other, distance) in enumerate(zip(neighbours, distances, strict=True), start=1):
                    near = records[other]
                    out.writerow(
                        (id_, query.path, query.label, rank, other, near.path, near.label, distance, score(distance))
                    )

        yield write


@contextmanager
def parquet_table(file: Path, records: Records, score: Score) -> Iterator[Write]:
    """Write blocks to a Parquet file; IndexingError without PyArrow."""
    from searchengine.exchange.tabular import pyarrow

    arrow = pyarrow()
    text = arrow.dictionary(arrow.int32(), arrow.string())
    types = (arrow.int64(), text, text, arrow.int32(), arrow.int64(), text, text, arrow.float64(), arrow.float64())
    schema = arrow.schema(list(zip(COLUMNS, types, strict=True)))
    with arrow.parquet.ParquetWriter(file, schema) as writer:

        def write(block: Block) -> None:
            count, k = block.neighbours.shape
            ids = np.repeat(block.ids, k)  # (b,) -> (b * k,)
            neighbours, distances = block.neighbours.reshape(-1), block.distances.reshape(-1)  # (b, k) -> (b * k,)
            queries = [records[id_] for id_ in ids.tolist()]
            near = [records[id_] for id_ in neighbours.tolist()]
            values = (
                ids,
                [record.path for record in queries],
                [record.label for record in queries],
                np.tile(np.arange(1, k + 1, dtype=np.int32), count),
                neighbours,
                [record.path for record in near],
                [record.label for record in near],
                distances,
                [score(distance) for distance in distances.tolist()],
            )
            arrays = [
                arrow.array(value, arrow.string()).dictionary_encode() if kind == text else arrow.array(value, kind)
                for value, kind in zip(values, types, strict=True)
            ]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))

        yield write
