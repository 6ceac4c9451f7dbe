"""Data computed from an index and kept in its folder: the map, the groups, the classifier, the evaluation.

Each kind is one file, and the index works without it. Only this module reads and writes such files. The sheet of a file
records what it was computed from, and readers compare that with the current index::

    @dataclass(frozen=True, slots=True)
    class EvaluationSheet:                      # JSON, validated by Pydantic
        format: Literal[1]
        made: str                               # derived.timestamp()
        fingerprint: str
        version: str
        evaluation: Evaluation

    EVALUATION = Derived("evaluation.json", EvaluationSheet, command="searchengine evaluate")

    version = ...                               # taken before computing, so any later change makes it stale
    EVALUATION.save(folder, EvaluationSheet(...))
    kept = EVALUATION.load(folder)              # None if missing; kept.sheet, kept.arrays
    stale = kept.sheet.version != version

An ``.npz`` file holds arrays too: ``MAP.save(folder, sheet, {"ids": ids, ...})``. Nothing is ever unpickled.

``Cached`` is for servers: it keeps a loaded value until the file or the index changes.
"""

from __future__ import annotations

import io
import logging
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexDamagedError, SearchEngineError, with_index_dir
from searchengine.files import output_file

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_MAX_BYTES = 2**31  # size limit of a file, and of its unpacked arrays
_SHEET = "about"  # the array of an .npz file that holds the sheet as JSON
# Raised by NumPy and zipfile for damaged or hostile files: headers are parsed as Python, members may be encrypted.
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, OverflowError, RuntimeError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
_log = logging.getLogger(__name__)

Arrays = Mapping[str, NDArray[Any]]
S = TypeVar("S")
K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredData(Generic[S]):
    """Derived data as it was stored."""

    sheet: S
    arrays: Arrays


@dataclass(frozen=True)
class Derived(Generic[S]):
    """One kind of derived data.

    Args:
        file: the file's name in the index folder: ``.json``, or ``.npz`` for arrays.
        sheet: the dataclass (or Pydantic model) of everything that is not an array.
        command: the command that computes it again; ``--index-dir`` is added.
        columns: required arrays of an .npz file with one entry per image.
        arrays: other required arrays.
        compressed: whether to compress the arrays; False if a server must load them fast.
    """

    file: str
    sheet: type[S]
    command: str = field(kw_only=True)
    columns: tuple[str, ...] = field(default=(), kw_only=True)
    arrays: tuple[str, ...] = field(default=(), kw_only=True)
    compressed: bool = field(default=True, kw_only=True)

    @cached_property
    def _adapter(self) -> TypeAdapter[S]:
        from pydantic import TypeAdapter

        return TypeAdapter(self.sheet)

    def path(self, folder: Path) -> Path:
        """Return the path of the file, which need not exist."""
        return folder / self.file

    def save(self, folder: Path, sheet: S, arrays: Arrays | None = None) -> Path:
        """Write the file in one step, and return its path; IndexingError if the folder is not writable."""
        data = self._adapter.dump_json(sheet)
        if self.file.endswith(".npz"):
            packed = io.BytesIO()
            content: dict[str, Any] = {_SHEET: np.array(data.decode("utf-8")), **(arrays or {})}
            (np.savez_compressed if self.compressed else np.savez)(packed, **content)
            data = packed.getvalue()
        with output_file(self.path(folder)) as part:
            part.write_bytes(data)
        return self.path(folder)

    def load(self, folder: Path) -> StoredData[S] | None:
        """Read the file; None if it is missing, IndexDamagedError if it is unusable."""
        file = self.path(folder)
        try:
            with file.open("rb") as opened:
                text, arrays = self._unpack(opened) if self.file.endswith(".npz") else (_text(opened), {})
            return StoredData(self._adapter.validate_json(text, strict=True), arrays)
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            raise IndexDamagedError(
                f"{file} cannot be read. Delete it and compute it again: {with_index_dir(self.command, folder)}"
            ) from error

    def _unpack(self, opened: Any) -> tuple[str, Arrays]:
        with zipfile.ZipFile(opened) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
                raise ValueError("its arrays are too large")  # a small file can unpack to any size
        opened.seek(0)
        with np.load(opened, allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        text = str(arrays.pop(_SHEET))
        missing = {*self.columns, *self.arrays} - set(arrays)
        if missing:
            raise ValueError(f"it lacks the arrays {sorted(missing)}")
        if len({len(arrays[name]) for name in self.columns}) > 1:
            raise ValueError("its columns have different lengths")
        return text, arrays

    def identity(self, folder: Path) -> tuple[int, int, int] | None:
        """Return a key that changes whenever the file is replaced; None if it is missing. For ``Cached``."""
        try:
            stat = self.path(folder).stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size


def timestamp() -> str:
    """Return the current time in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _text(opened: Any) -> bytes:
    data: bytes = opened.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError("the file is too large")
    return data


class Cached(Generic[K, T]):
    """A value that is computed again whenever its key changes. Threads may share it.

    Args:
        key: returns what the value depends on, e.g. ``(index.state().generation, MAP.identity(folder))``; called by
            every ``get``.
        compute: computes the value; its errors reach the caller of ``get``.
        in_background: called with the old and the new key; True to serve the old value while a thread computes the
            new one. By default, the next caller computes it.
    """

    def __init__(
        self,
        key: Callable[[], K],
        compute: Callable[[], T],
        *,
        in_background: Callable[[K, K], bool] = lambda old, new: False,
    ) -> None:
        self._key = key
        self._compute = compute
        self._in_background = in_background
        self._lock = threading.Lock()
        self._value: tuple[K, T] | None = None
        self._thread: threading.Thread | None = None

    def get(self) -> T:
        """Return the value for the current key, or an older one while a thread computes it."""
        with self._lock:
            key = self._key()  # under the lock, so that waiting threads get the value just computed
            if self._value is not None and self._value[0] != key and self._in_background(self._value[0], key):
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._refresh, args=(key,), daemon=True, name="derived")
                    self._thread.start()
            elif self._value is None or self._value[0] != key:
                self._value = (key, self._compute())
            return self._value[1]

    def _refresh(self, key: K) -> None:
        before = self._value
        value: tuple[K, T] | None
        try:
            value = (key, self._compute())
        except SearchEngineError as error:
            _log.warning("%s", error)
            value = None  # the next caller gets the error
        with self._lock:
            if self._value is before:  # otherwise a newer value has been computed in the meantime
                self._value = value
