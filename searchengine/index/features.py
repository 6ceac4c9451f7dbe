"""The feature matrix on disk: float32 rows in a ``.npy`` file that only grows.

The header has a fixed length with room for any row count, so the count can be rewritten in place. The catalog alone
says how many rows are valid. Rows beyond that were left by a killed run, and the next append overwrites them.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError
from searchengine.files import open_regular
from searchengine.index.database import damaged, on_error

HEADER_BYTES = 256
_MAGIC = b"\x93NUMPY\x01\x00"
_FLOAT = np.dtype("<f4")
_NAME = re.compile(r"features(-[0-9]+)?\.npy", re.ASCII)


def header(rows: int, dimension: int) -> bytes:
    """Return the ``.npy`` header (format 1.0) of a (rows, dimension) float32 matrix, always 256 bytes long."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}"
    body = HEADER_BYTES - len(_MAGIC) - 2
    return _MAGIC + body.to_bytes(2, "little") + text.ljust(body - 1).encode("ascii") + b"\n"


def next_name(name: str) -> str:
    """Return the name of the next feature file: features.npy -> features-2.npy -> features-3.npy ..."""
    _, _, number = name.removesuffix(".npy").partition("-")
    return f"features-{int(number or 1) + 1}.npy"


def matrices(folder: Path) -> list[Path]:
    """Return all feature files in an index folder, including those that the catalog does not name."""
    return [file for file in folder.glob("features*.npy") if _NAME.fullmatch(file.name)]


def map_rows(file: Path, rows: int, dimension: int, *, scattered: bool = False) -> NDArray[np.float32]:
    """Map the first ``rows`` rows read-only -> (rows, dimension) float32.

    ``scattered`` turns read-ahead off, for random access. With read-ahead the system reads megabytes around each row
    that is not in memory yet, and reading 320 rows from a disk took 4 s instead of 0.2 s.

    Raises:
        IndexDamagedError: the file is missing, too short, or not such a matrix.
        IndexingError: the file cannot be read.
    """
    if rows == 0:  # an empty range cannot be mapped, and the file may not exist yet
        return np.empty((0, dimension), dtype=np.float32)
    try:
        with open_regular(file) as opened:
            start = opened.read(HEADER_BYTES)
            size = os.fstat(opened.fileno()).st_size
            if start[: len(_MAGIC)] != _MAGIC or f", {dimension})".encode() not in start:
                raise damaged(file, f"it is not a feature matrix of {dimension} columns", file.parent)
            need = HEADER_BYTES + rows * dimension * _FLOAT.itemsize
            if size < need:
                raise damaged(file, f"it is cut short, {size} bytes where the catalog expects {need}", file.parent)
            mapped = _mapped(opened, (rows, dimension))
    except FileNotFoundError as error:
        raise damaged(file, "it is missing", file.parent) from error
    except OSError as error:
        raise IndexingError(
            f"{file} cannot be read: {error.strerror}. Check its permissions and the disk, and try again."
        ) from error
    if scattered and hasattr(mmap, "MADV_RANDOM"):
        with contextlib.suppress(OSError):  # only advice, which some systems refuse
            mapped._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
    return mapped


def _mapped(opened: BinaryIO, shape: tuple[int, int]) -> np.memmap[Any, np.dtype[np.float32]]:
    try:
        return np.memmap(opened, dtype=_FLOAT, mode="r", offset=HEADER_BYTES, shape=shape)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        # The file system lacks shared memory. A private map shows the same, because rows never change.
        rows = np.memmap(opened, dtype=_FLOAT, mode="c", offset=HEADER_BYTES, shape=shape)
        rows.flags.writeable = False
        return rows


def is_whole(rows: NDArray[np.float32]) -> bool:
    """Return whether the file of mapped rows is still long enough: reading beyond its end would kill this process."""
    mapped = getattr(rows, "_mmap", None)
    return mapped is None or mapped.size() >= HEADER_BYTES + rows.nbytes


class FeatureWriter:
    """Appends rows to a matrix. The lock of the index ensures that there is one writer."""

    def __init__(self, file: Path, rows: int, dimension: int) -> None:
        self.file = file
        self.rows = rows
        self.dimension = dimension
        if rows == 0:  # a new file, or one whose run was killed before its first batch: no reader has mapped it
            with file.open("wb") as opened:
                opened.write(header(0, dimension))
                opened.flush()
                os.fsync(opened.fileno())
        else:
            map_rows(file, rows, dimension)  # refuses a wrong file before anything is written
        self._file = file.open("r+b", buffering=0)
        with on_error(self._file.close):
            if self._file.read(HEADER_BYTES) != header(rows, dimension):  # a run was killed between commit and publish
                self.publish()

    def append(self, features: NDArray[np.float32]) -> int:
        """Write (n, d) float32 rows, flush them to the disk, and return the number of the first.

        They become valid once the catalog has been committed with the new total; then call ``publish``.
        """
        if features.ndim != 2 or features.shape[1] != self.dimension:
            raise ValueError(f"rows of shape {features.shape} do not fit a matrix of {self.dimension} columns")
        first = self.rows
        data = memoryview(np.ascontiguousarray(features, dtype=_FLOAT).data).cast("B")
        position = HEADER_BYTES + first * self.dimension * _FLOAT.itemsize
        self._file.seek(position)
        while data:  # a raw write may write only a part
            data = data[self._file.write(data) :]
        os.fsync(self._file.fileno())
        self.rows = first + features.shape[0]
        return first

    def roll_back(self, rows: int) -> None:
        """Forget rows that were appended but not committed: the next append overwrites them."""
        self.rows = rows

    def publish(self) -> None:
        """Rewrite the header, so that a plain ``numpy.load`` sees the committed rows too."""
        self._file.seek(0)
        self._file.write(header(self.rows, self.dimension))

    def close(self) -> None:
        self._file.close()
