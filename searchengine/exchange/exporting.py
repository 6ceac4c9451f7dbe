"""An index -> one file: features, ids, paths and labels, bit for bit what the index holds."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError
from searchengine.exchange.table import ALL_LABELS
from searchengine.files import output_file
from searchengine.index.local import LocalIndex
from searchengine.index.types import ImageRecord
from searchengine.progress import QUIET, Progress

_BLOCK_BYTES = 32 * 2**20
FORMATS = (".npz", ".parquet")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written; ``bytes`` on disk."""

    file: str
    rows: int
    dimension: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def export_index(index: LocalIndex, file: Path, progress: Progress | None = None) -> Exported:
    """Write all of an index to an .npz or a Parquet file, which is replaced only when the new one is whole.

    An .npz has ``features`` (n, d) float32, ``ids`` (n,) int64, ``paths`` and ``labels`` (n,) text, empty where there
    is none; ``all_labels`` (n,) JSON lists where an image has several; and ``extractor`` and ``metric`` in words. A
    Parquet file has the columns id, path, labels (a list) and features.

    Raises:
        IndexingError: another ending, no PyArrow for Parquet, or the file cannot be written.
    """
    progress = progress or QUIET
    if file.suffix.lower() not in FORMATS:
        raise IndexingError(f"{file} must end in {' or '.join(FORMATS)}: that says what is written.")
    state = index.state()
    live = state.live
    live = live[np.argsort(state.ids[live], kind="stable")]  # in the order of ids, whatever was changed since
    ids = state.ids[live]
    known = {record.id: record for record in index.known(ids.tolist())}
    kept = np.array([id_ in known for id_ in ids.tolist()], dtype=np.bool_)  # the others were removed just now
    live, ids = live[kept], ids[kept]
    records = [known[id_] for id_ in ids.tolist()]
    words = {"extractor": index.manifest("extractor") or "", "metric": state.metric}
    progress.start(len(live), 0)
    write = _write_npz if file.suffix.lower() == ".npz" else _write_parquet
    with output_file(file) as part:
        write(part, ids, records, words, _blocks(state.rows, live, progress), state.rows.shape[1])
    return Exported(str(file), len(live), state.rows.shape[1], file.stat().st_size)


def _blocks(rows: NDArray[np.float32], live: NDArray[np.int64], progress: Progress) -> Iterator[NDArray[np.float32]]:
    step = max(1, _BLOCK_BYTES // (4 * rows.shape[1]))
    for start in range(0, len(live), step):
        chosen = live[start : start + step]
        yield np.asarray(rows[chosen])  # (b,) -> (b, d)
        progress.advance(len(chosen))


def _paths(records: Sequence[ImageRecord]) -> list[str]:
    return ["" if record.path == f"#{record.id}" else record.path for record in records]


def _write_npz(
    part: Path,
    ids: NDArray[np.int64],
    records: Sequence[ImageRecord],
    words: dict[str, str],
    blocks: Iterator[NDArray[np.float32]],
    dimension: int,
) -> None:
    arrays = {
        "ids": ids,
        "paths": np.array(_paths(records), dtype=np.str_),
        "labels": np.array([record.label or "" for record in records], dtype=np.str_),
        **{key: np.array(value, dtype=np.str_) for key, value in words.items()},
    }
    if any(len(record.labels) > 1 for record in records):
        every = [json.dumps(record.labels, ensure_ascii=False) for record in records]
        arrays[ALL_LABELS] = np.array(every, dtype=np.str_)
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as member:
            head = {"descr": "<f4", "fortran_order": False, "shape": (len(ids), dimension)}
            np.lib.format.write_array_header_1_0(member, head)
            for block in blocks:
                member.write(np.ascontiguousarray(block, dtype="<f4").data)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _write_parquet(
    part: Path,
    ids: NDArray[np.int64],
    records: Sequence[ImageRecord],
    words: dict[str, str],
    blocks: Iterator[NDArray[np.float32]],
    dimension: int,
) -> None:
    from searchengine.exchange.tabular import pyarrow

    arrow = pyarrow()
    schema = arrow.schema(
        [
            ("id", arrow.int64()),
            ("path", arrow.string()),
            ("labels", arrow.list_(arrow.string())),
            ("features", arrow.list_(arrow.float32(), dimension)),
        ],
        metadata={f"searchengine.{key}": value for key, value in words.items()},
    )
    paths = [path or None for path in _paths(records)]
    start = 0
    with arrow.parquet.ParquetWriter(part, schema) as writer:
        for block in blocks:
            stop = start + len(block)
            flat = arrow.array(np.ascontiguousarray(block).reshape(-1), arrow.float32())
            columns = [
                arrow.array(ids[start:stop]),
                arrow.array(paths[start:stop], arrow.string()),
                arrow.array([list(record.labels) for record in records[start:stop]], schema.field("labels").type),
                arrow.FixedSizeListArray.from_arrays(flat, dimension),
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))
            start = stop
