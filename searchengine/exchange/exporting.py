"""An index -> one file: features, ids, paths and labels, every number as the index has it."""

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
from searchengine.exchange.tabular import pyarrow
from searchengine.files import output_file
from searchengine.index.local import LocalIndex
from searchengine.index.types import ImageRecord
from searchengine.progress import QUIET, Progress

FORMATS = (".npz", ".parquet")
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Exported:
    """The file that was written, and its size in ``bytes``."""

    file: str
    rows: int
    dimension: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON has it."""
        return asdict(self)


def export_index(index: LocalIndex, file: Path, progress: Progress = QUIET) -> Exported:
    """Write all of an index to an .npz or a Parquet file, which is replaced only by a complete one.

    An .npz has ``features`` (n, d) float32, ``ids`` (n,) int64, ``paths`` and ``labels`` (n,) text, empty where there
    is none; ``all_labels`` (n,) JSON lists if an image has several; and ``extractor`` and ``metric`` in words. A
    Parquet file has the columns id, path, labels (a list) and features.

    Raises:
        IndexingError: another suffix, no PyArrow for Parquet, or the file cannot be written.
    """
    suffix = file.suffix.lower()
    if suffix not in FORMATS:
        raise IndexingError(f"{file} must end in {' or '.join(FORMATS)}, which names the format.")
    content = _content(index)
    progress.start(len(content.ids))
    with output_file(file) as part:
        (_write_npz if suffix == ".npz" else _write_parquet)(part, content, progress)
    return Exported(str(file), len(content.ids), content.matrix.shape[1], file.stat().st_size)


@dataclass(frozen=True, slots=True)
class _Content:
    """What an index holds, in the order of ids."""

    ids: NDArray[np.int64]  # (n,)
    records: Sequence[ImageRecord]
    matrix: NDArray[np.float32]  # (r, d), mapped
    rows: NDArray[np.int64]  # (n,), that of each image in the matrix
    words: dict[str, str]

    @property
    def paths(self) -> list[str]:
        return ["" if record.path == f"#{record.id}" else record.path for record in self.records]

    def blocks(self, progress: Progress) -> Iterator[NDArray[np.float32]]:
        """The features, some (b, d) at a time."""
        step = max(1, _BLOCK_BYTES // (4 * self.matrix.shape[1]))
        for start in range(0, len(self.rows), step):
            rows = self.rows[start : start + step]
            yield np.asarray(self.matrix[rows])  # (b,) -> (b, d)
            progress.advance(len(rows))


def _content(index: LocalIndex) -> _Content:
    state = index.state()
    rows = state.live_by_id
    known = {record.id: record for record in index.known(state.ids[rows].tolist())}
    rows = rows[[id_ in known for id_ in state.ids[rows].tolist()]]  # the others have just been removed
    ids = state.ids[rows]
    words = {"extractor": index.manifest("extractor") or "", "metric": state.metric}
    return _Content(ids, [known[id_] for id_ in ids.tolist()], state.rows, rows, words)


def _write_npz(part: Path, content: _Content, progress: Progress) -> None:
    arrays = {
        "ids": content.ids,
        "paths": np.array(content.paths, dtype=np.str_),
        "labels": np.array([record.label or "" for record in content.records], dtype=np.str_),
        **{key: np.array(value, dtype=np.str_) for key, value in content.words.items()},
    }
    if any(len(record.labels) > 1 for record in content.records):
        all_labels = [json.dumps(record.labels, ensure_ascii=False) for record in content.records]
        arrays[ALL_LABELS] = np.array(all_labels, dtype=np.str_)
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as member:
            shape = (len(content.ids), content.matrix.shape[1])
            np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for block in content.blocks(progress):
                member.write(np.ascontiguousarray(block, dtype="<f4").data)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _write_parquet(part: Path, content: _Content, progress: Progress) -> None:
    arrow = pyarrow()
    dimension = content.matrix.shape[1]
    schema = arrow.schema(
        [
            ("id", arrow.int64()),
            ("path", arrow.string()),
            ("labels", arrow.list_(arrow.string())),
            ("features", arrow.list_(arrow.float32(), dimension)),
        ],
        metadata={f"searchengine.{key}": value for key, value in content.words.items()},
    )
    paths = [path or None for path in content.paths]
    labels = [list(record.labels) for record in content.records]
    start = 0
    with arrow.parquet.ParquetWriter(part, schema) as writer:
        for block in content.blocks(progress):
            stop = start + len(block)
            numbers = arrow.array(np.ascontiguousarray(block).reshape(-1), arrow.float32())
            columns = [
                arrow.array(content.ids[start:stop]),
                arrow.array(paths[start:stop], arrow.string()),
                arrow.array(labels[start:stop], schema.field("labels").type),
                arrow.FixedSizeListArray.from_arrays(numbers, dimension),
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))
            start = stop
