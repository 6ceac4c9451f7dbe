"""The structure for approximate search: what FAISS has built of a feature matrix, kept beside the index.

Its sheet (``approximate.json``) names the file that FAISS wrote and says which rows of which matrix it covers. That
file is mapped, as far as FAISS can do that, so that it takes little memory of its own. Rows never change once they are
committed: a structure stays true while rows are added or removed, and is of no use for another matrix.
"""

from __future__ import annotations

import logging
import math
import os
import re
import weakref
import zlib
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import Cached, Derived
from searchengine.errors import IndexDamagedError, MissingPackageError, missing_extra, with_index_dir
from searchengine.files import open_regular
from searchengine.index.metrics import EUCLIDEAN, metric_title, rank_alike
from searchengine.index.state import NO_IMAGE, State
from searchengine.processors import processors

COMMAND = "searchengine ann"
TOO_LONG = 0.05  # s; an exact search that takes longer is worth a structure
RECALL_AT = 20  # hits, among which recall is measured
MANY = 16  # queries, from which several threads answer them
_NAME = re.compile(r"approximate-[0-9a-f]{8}\.faiss", re.ASCII)
_SAMPLE = 64  # rows that are compared with those that it was built from
_LONGEST = 1e15  # a query whose square float32 still holds
_AT_ONCE = 2**20  # bytes
_ROWS_AT_ONCE = 8192
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StructureSheet:
    """What is known of a structure.

    Attributes:
        factory: how it is made, as FAISS spells it.
        file: what FAISS wrote, in the same folder, with its ``size`` in bytes and its ``checksum`` (CRC-32).
        features_file: the matrix that it was built from.
        rows: how many rows of that it covers, from the first on.
        sample: CRC-32 of a few of these rows.
        nprobe: lists that are searched for ``RECALL_AT`` neighbours.
        depth: candidates for each neighbour that is wanted.
        deepest: candidates, beyond which exact search takes no longer.
        recall: the share of the ``RECALL_AT`` nearest that are found, measured for ``queries`` images.
        exact_seconds: what one exact search takes on the machine that built it, by metric.
    """

    format: Literal[1]
    made: str
    factory: str
    file: str
    size: int
    checksum: int
    features_file: str
    rows: int
    sample: int
    nprobe: int
    depth: int
    deepest: int
    recall: float
    queries: int
    exact_seconds: dict[str, float]

    @property
    def found(self) -> str:
        """What share of the nearest is found, for people: "99.4 %"; never more than it is."""
        return f"{math.floor(self.recall * 1000) / 10:g} %"


STRUCTURE = Derived("approximate.json", StructureSheet, command=COMMAND)


def structures(folder: Path) -> list[Path]:
    """The files of FAISS in an index folder, those among them that no sheet names too; nobody else's."""
    return [file for file in folder.glob("approximate-*.faiss") if _NAME.fullmatch(file.name)]


def load_faiss() -> Any:
    """FAISS, working with one thread for whoever calls; MissingPackageError names the command that installs it."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait for others leave them the processor
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise missing_extra("FAISS", "ann") from error
    faiss.omp_set_num_threads(1)  # of this thread: a request has one, and the others go on
    return faiss


class Structure:
    """An opened structure. Never changes; safe to share between threads; open it after a fork."""

    def __init__(self, sheet: StructureSheet, descriptor: int, index: Any) -> None:
        self.sheet = sheet
        self._descriptor = descriptor  # of the file that FAISS has mapped
        weakref.finalize(self, os.close, descriptor)
        self._index = index
        ivf = load_faiss().extract_index_ivf(index)
        self.lists, self.list_bytes = int(ivf.nlist), float(ivf.code_size * ivf.ntotal / ivf.nlist)
        self._checked: tuple[int, bool] | None = None  # the generation of a state, and whether it is of its matrix

    @classmethod
    def open(cls, folder: Path) -> Structure | None:
        """The structure of an index folder, None if it has none; IndexDamagedError, MissingPackageError."""
        kept = STRUCTURE.load(folder)
        return None if kept is None else cls.of_sheet(folder, kept.sheet)

    @classmethod
    def of_sheet(cls, folder: Path, sheet: StructureSheet) -> Structure:
        """The structure that a sheet describes; IndexDamagedError, MissingPackageError."""
        faiss = load_faiss()
        file = folder / sheet.file
        try:
            if not _NAME.fullmatch(sheet.file):
                raise ValueError("its name is wrong")
            if min(sheet.rows, sheet.nprobe, sheet.depth) < 1:
                raise ValueError("its sheet names no rows, lists or candidates")
            with open_regular(file) as opened:
                # First: FAISS believes what it reads.
                if (os.fstat(opened.fileno()).st_size, checksum(opened)) != (sheet.size, sheet.checksum):
                    raise ValueError("its content is not what was written")
                index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
                return cls(sheet, os.dup(opened.fileno()), index)
        except (OSError, ValueError, RuntimeError) as error:
            raise IndexDamagedError(
                f"{file} cannot be used ({error}). Searches are exact until it is built again: "
                f"{with_index_dir(COMMAND, folder)}"
            ) from error

    def with_sheet(self, sheet: StructureSheet) -> Structure:
        """The same, searched as another sheet of the same file says; no longer than this one is kept."""
        structure = copy(self)
        structure.sheet = sheet
        return structure

    def serves(self, state: State, metric: str) -> bool:
        """Whether it was built from the rows of a state, and finds what is nearest by a metric."""
        if not rank_alike(metric, EUCLIDEAN, normalized=state.normalized):
            return False
        if self._checked is None or self._checked[0] != state.generation:
            self._checked = (state.generation, is_of(self.sheet, state))
        # A file that was cut short since must not be read: that would end this process.
        return self._checked[1] and os.fstat(self._descriptor).st_size == self.sheet.size

    def remark(self, state: State, metric: str) -> str | None:
        """For people who search by a metric: how much they find or, where it is not for that metric, how long it takes.

        None where there is nothing to say.
        """
        if self.serves(state, metric):
            return f"Quick search: it finds {self.sheet.found} of what a comparison with every picture would find."
        seconds = self.sheet.exact_seconds.get(metric, 0.0)
        if seconds <= TOO_LONG or not is_of(self.sheet, state):
            return None
        return f"By {metric_title(metric)}, every picture is compared, which takes about {seconds:.1f} s."

    def covering(self, state: State) -> Structure:
        """The same, of which all rows of a state can be found: in memory, where rows have been added since."""
        first, end = self.sheet.rows, len(state.ids)
        if first == end:
            return self
        with os.fdopen(os.dup(self._descriptor), "rb") as opened:
            index = load_faiss().deserialize_index(np.memmap(opened, np.uint8, "r"))
        for start in range(first, end, _ROWS_AT_ONCE):
            rows = np.arange(start, min(start + _ROWS_AT_ONCE, end))
            rows = rows[state.ids[rows] != NO_IMAGE]
            index.add_with_ids(np.asarray(state.rows[rows]), rows)
        return Structure(replace(self.sheet, rows=end), os.dup(self._descriptor), index)

    def nearest(
        self, queries: NDArray[np.float32], count: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[NDArray[np.int64] | None]:
        """About the ``count`` nearest of the rows that it covers, in about their order; fewer if these are all.

        Args:
            queries: (m, d) float32; many are answered by all processors.
            count: at least 1.
            allowed: (rows,) mask of the rows that may be found; None: all.

        Returns:
            m arrays of (c,) int64 rows; None for a query that FAISS cannot answer.
        """
        faiss = load_faiss()
        wider = math.sqrt(max(1.0, count / (self.sheet.depth * RECALL_AT)))
        selector, share = None, 1.0
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            share = max(int(np.count_nonzero(allowed)), 1) / len(allowed)
        enough = max(self.sheet.nprobe * wider, 2.0 * count * self.lists / self.sheet.rows)  # to hold that many
        norms = np.linalg.norm(queries.astype(np.float64), axis=1)
        asked = np.flatnonzero((norms > 0) & (norms < _LONGEST))
        answers: list[NDArray[np.int64] | None] = [None] * len(queries)
        for lists in (min(self.lists, math.ceil(enough / share)), self.lists):
            for i, rows in zip(asked, self._search(faiss, queries[asked], count, lists, selector), strict=True):
                answers[i] = rows[(rows >= 0) & (rows < self.sheet.rows)]
            asked = asked[[len(answers[i]) < count for i in asked]]  # type: ignore[arg-type]
            if not len(asked):
                break
        return answers

    def _search(
        self, faiss: Any, queries: NDArray[np.float32], count: int, lists: int, selector: Any
    ) -> NDArray[np.int64]:
        """(m, d) -> (m, count) rows, -1 for none."""
        parameters = faiss.SearchParametersIVF(nprobe=lists, sel=selector)
        if isinstance(self._index, faiss.IndexPreTransform):
            parameters = faiss.SearchParametersPreTransform(index_params=parameters)
        faiss.omp_set_num_threads(processors() if len(queries) >= MANY else 1)
        rows: NDArray[np.int64] = self._index.search(queries, count, params=parameters)[1]
        return rows


class OpenedStructure:
    """The structure of an index folder, opened for the first search. Safe to share between threads.

    One that is put in its place is opened by a thread, while the old one answers.
    """

    def __init__(self, folder: Path, *, unused: bool = False) -> None:
        self._folder = folder
        self._unused = unused
        self._cached: Cached[tuple[int, int, int] | None, Structure | None] = Cached(
            lambda: STRUCTURE.identity(folder),
            self._open,
            in_background=lambda old, new: old is not None and new is not None and old[0] != new[0],
        )

    def _open(self) -> Structure | None:
        try:
            return Structure.open(self._folder)
        except (IndexDamagedError, MissingPackageError) as error:
            _log.warning("%s", error)
            return None

    def get(self) -> Structure | None:
        """The structure, if there is one that can be used."""
        return None if self._unused else self._cached.get()

    def serving(self, state: State, metric: str) -> Structure | None:
        """The structure, if it serves a state and a metric."""
        structure = self.get()
        return structure if structure is not None and structure.serves(state, metric) else None


def is_of(sheet: StructureSheet, state: State) -> bool:
    """Whether the rows that it was built from are those of a state."""
    return (
        sheet.features_file == state.features_file
        and sheet.rows <= len(state.ids)
        and sheet.sample == sample_checksum(state, sheet.rows)
    )


def sample_checksum(state: State, rows: int) -> int:
    """CRC-32 of a few rows, spread evenly over the first ones of a matrix."""
    return zlib.crc32(state.scattered[np.linspace(0, rows - 1, min(_SAMPLE, rows)).astype(np.int64)].tobytes())


def checksum(opened: BinaryIO) -> int:
    """CRC-32 of a file, from where it stands."""
    value = 0
    while block := opened.read(_AT_ONCE):
        value = zlib.crc32(block, value)
    return value
