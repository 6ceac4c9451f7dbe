"""What a backbone made of images, in one file that only grows: a run that was killed goes on behind the last record."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONTENT_BYTES = 16


class Records:
    """Records of one size, told by the content hash of the image. What stands twice counts once, what is torn never."""

    def __init__(self, file: Path, *, views: int, dimension: int, pixels: tuple[int, int] | None) -> None:
        """``views`` features of ``dimension`` numbers a record and, if wanted, ``pixels`` of so many rows and columns.

        OSError where the file cannot be read or written.
        """
        fields: list[tuple[Any, ...]] = [
            ("content", np.void, CONTENT_BYTES),
            ("features", np.float32, (views, dimension)),
        ]
        if pixels is not None:
            fields.append(("pixels", np.uint8, (*pixels, 3)))
        self._kind = np.dtype([("content", f"V{CONTENT_BYTES}"), *fields[1:]])
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        whole = file.stat().st_size // self._kind.itemsize
        if file.stat().st_size != whole * self._kind.itemsize:
            os.truncate(file, whole * self._kind.itemsize)
        self._rows: NDArray[Any] = np.empty(0, self._kind)
        self._places: dict[bytes, int] = {}
        self._take_up()

    def __contains__(self, content: object) -> bool:
        return content in self._places

    def append(
        self, contents: list[bytes], features: NDArray[np.float32], pixels: NDArray[np.uint8] | None = None
    ) -> None:
        """Add a record for each: features (m, views, d) and, where they are kept, pixels (m, h, w, 3)."""
        rows = np.empty(len(contents), self._kind)
        rows["content"] = np.frombuffer(b"".join(contents), f"V{CONTENT_BYTES}")
        rows["features"] = features
        if "pixels" in (self._kind.names or ()):
            rows["pixels"] = pixels
        end = len(self._rows) * self._kind.itemsize
        try:
            with self._file.open("ab") as stream:
                stream.write(rows.tobytes())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            os.truncate(self._file, end)  # so that the next record begins where one should
            raise
        self._take_up()

    def places(self, contents: list[bytes]) -> NDArray[np.int64]:
        """(m,) int64: where the records of these contents stand."""
        return np.array([self._places[content] for content in contents], dtype=np.int64)

    def features(self, places: NDArray[np.int64], view: int | NDArray[np.int64] = 0) -> NDArray[np.float32]:
        """(m,) places -> (m, d) float32: of each one view."""
        return np.asarray(self._rows["features"][places, view], dtype=np.float32)  # places: a copy already

    def pixels(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(m,) places -> (m, h, w, 3) uint8."""
        return np.array(self._rows["pixels"][places], dtype=np.uint8)

    def _take_up(self) -> None:
        if not self._file.stat().st_size:
            return
        before = len(self._rows)
        self._rows = np.memmap(self._file, self._kind, mode="r")
        for place, content in enumerate(self._rows["content"][before:].tolist(), before):
            self._places.setdefault(bytes(content), place)
