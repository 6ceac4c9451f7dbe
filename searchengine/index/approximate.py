"""Approximate search with FAISS, whose results are ranked by exact distances.

``building`` lets FAISS build a structure over the feature matrix, which is kept beside the index. Its sheet
(``approximate.json``) names the file that FAISS wrote, and says which rows of which matrix it covers. That file is
memory-mapped as far as FAISS supports it, so that it takes little memory of its own. Rows never change once they are
committed, so a structure stays valid while rows are added or removed; for another matrix it is of no use.

FAISS only names candidates. Their distances, and so their order, are those of exact search. Exact search also covers
what FAISS cannot: rows added since the structure was built, the few rows that pass a narrow filter, and pages so deep
in the ranking that a pass over all rows costs no more.
"""

from __future__ import annotations

import logging
import math
import os
import re
import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import Cached, Derived
from searchengine.errors import IndexDamagedError, MissingPackageError, missing_extra, with_index_dir
from searchengine.files import open_regular
from searchengine.index.exact import Neighbours, Searcher
from searchengine.index.filters import Cursor
from searchengine.index.metrics import EUCLIDEAN, metric_title, rank_alike
from searchengine.index.state import NO_IMAGE, State
from searchengine.processors import processors

COMMAND = "searchengine ann"
TOO_LONG = 0.05  # seconds; a structure is worth building if an exact search takes longer
RECALL_AT = 20  # number of nearest neighbours for which recall is measured
_MANY = 16  # number of queries from which several threads answer them
_NAME = re.compile(r"approximate-[0-9a-f]{8}\.faiss", re.ASCII)
_SAMPLE = 64  # rows that are compared with those the structure was built from
_LONGEST = 1e15  # norm of a query whose square still fits into float32
_BLOCK_BYTES = 2**20  # bytes of a file read at once
_BLOCK_ROWS = 8192  # rows added to a structure at once
_FEW_VALUES = 2**22  # values in rows that pass a filter, which exact search reads as quickly as FAISS skips the others
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StructureSheet:
    """The description of a structure.

    Attributes:
        factory: its kind, as a FAISS factory string.
        file: the file that FAISS wrote, in the same folder, with its ``size`` in bytes and its ``checksum`` (CRC-32).
        features_file: the matrix that it was built from.
        rows: the number of rows of the matrix that it covers, from the first on.
        sample: CRC-32 of a few of these rows.
        nprobe: lists to search for ``RECALL_AT`` neighbours.
        depth: candidates for each neighbour.
        deepest: the number of candidates above which exact search is as quick.
        recall: the share of the ``RECALL_AT`` nearest that are found, measured with ``queries`` queries.
        exact_seconds: the duration of one exact search on the machine that built the structure, by metric.
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
        """The recall for display, rounded down: "99.4 %"."""
        return f"{math.floor(self.recall * 1000) / 10:g} %"

    def covers(self, state: State) -> bool:
        """Return whether the structure was built from rows of this state."""
        return (
            self.features_file == state.features_file
            and self.rows <= len(state.ids)
            and self.sample == sample_checksum(state, self.rows)
        )


STRUCTURE = Derived("approximate.json", StructureSheet, command=COMMAND)


def structures(folder: Path) -> list[Path]:
    """Return FAISS's files in an index folder, including those that no sheet names."""
    return [file for file in folder.glob("approximate-*.faiss") if _NAME.fullmatch(file.name)]


def load_faiss() -> Any:
    """Import FAISS and let it use one thread in the calling thread; MissingPackageError."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait for others free their processor
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise missing_extra("FAISS", "ann") from error
    faiss.omp_set_num_threads(1)  # affects this thread only: each request has one, so that others go on
    return faiss


class Structure:
    """An open structure. It never changes and is safe to share between threads, but must be opened after a fork."""

    def __init__(self, sheet: StructureSheet, descriptor: int, index: Any) -> None:
        self.sheet = sheet
        self._descriptor = descriptor  # of the file that FAISS has mapped
        weakref.finalize(self, os.close, descriptor)
        self._index = index
        ivf = load_faiss().extract_index_ivf(index)
        self.lists, self.list_bytes = int(ivf.nlist), float(ivf.code_size * ivf.ntotal / ivf.nlist)
        self._checked: tuple[object, bool] | None = None  # a state's generation, and whether the structure covers it

    @classmethod
    def open(cls, folder: Path) -> Structure | None:
        """Open the structure of an index folder, or return None if it has none; raises what ``of_sheet`` raises."""
        stored = STRUCTURE.load(folder)
        return None if stored is None else cls.of_sheet(folder, stored.sheet)

    @classmethod
    def of_sheet(cls, folder: Path, sheet: StructureSheet) -> Structure:
        """Open the structure that a sheet describes; IndexDamagedError, MissingPackageError."""
        faiss = load_faiss()
        file = folder / sheet.file
        try:
            if not _NAME.fullmatch(sheet.file):
                raise ValueError("its name is wrong")
            if min(sheet.rows, sheet.nprobe, sheet.depth) < 1:
                raise ValueError("its sheet names no rows, lists or candidates")
            with open_regular(file) as opened:
                # checked first, because FAISS trusts what it reads
                if (os.fstat(opened.fileno()).st_size, checksum(opened)) != (sheet.size, sheet.checksum):
                    raise ValueError("its content is not what was written")
                index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
                return cls(sheet, os.dup(opened.fileno()), index)
        except (OSError, ValueError, RuntimeError) as error:
            raise IndexDamagedError(
                f"{file} cannot be used ({error}). Searches are exact until you build it again: "
                f"{with_index_dir(COMMAND, folder)}"
            ) from error

    def with_sheet(self, sheet: StructureSheet) -> Structure:
        """Return a copy that is searched as another sheet says. This structure must be kept as long as the copy."""
        structure = copy(self)
        structure.sheet = sheet
        return structure

    def serves(self, state: State, metric: str) -> bool:
        """Return whether the structure covers a state and finds what is nearest in a metric."""
        if not rank_alike(metric, EUCLIDEAN, normalized=state.normalized):
            return False
        if self._checked is None or self._checked[0] != state.generation:
            self._checked = (state.generation, self.sheet.covers(state))
        # If the file was cut short in the meantime, reading it would kill this process.
        return self._checked[1] and os.fstat(self._descriptor).st_size == self.sheet.size

    def remark(self, state: State, metric: str) -> str | None:
        """Return a sentence for users about the recall or, if the metric needs a slow exact search, its duration."""
        if self.serves(state, metric):
            return f"Quick search: it finds {self.sheet.found} of what a comparison with every picture would find."
        seconds = self.sheet.exact_seconds.get(metric, 0.0)
        if seconds <= TOO_LONG or not self.sheet.covers(state):
            return None
        return f"Searching by {metric_title(metric)} compares every picture, which takes about {seconds:.1f} s."

    def covering(self, state: State) -> Structure:
        """Return a structure for all rows of a state: this one, or a copy in memory with the rows added since."""
        first, end = self.sheet.rows, len(state.ids)
        if first == end:
            return self
        with os.fdopen(os.dup(self._descriptor), "rb") as opened:
            index = load_faiss().deserialize_index(np.memmap(opened, np.uint8, "r"))
        for start in range(first, end, _BLOCK_ROWS):
            rows = np.arange(start, min(start + _BLOCK_ROWS, end))
            rows = rows[state.ids[rows] != NO_IMAGE]
            index.add_with_ids(np.asarray(state.rows[rows]), rows)
        return Structure(replace(self.sheet, rows=end), os.dup(self._descriptor), index)

    def candidates(
        self, queries: NDArray[np.float32], count: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[NDArray[np.int64] | None]:
        """Return roughly the ``count`` nearest rows of each query, roughly in order; fewer if there are no more.

        Args:
            queries: (m, d) float32; all processors share the work if there are many.
            count: at least 1.
            allowed: (rows,) mask of the rows that may be returned; None for all.

        Returns:
            m arrays of (c,) int64 rows; None for a query that FAISS cannot answer, or not more quickly than exact
            search.
        """
        results: list[NDArray[np.int64] | None] = [None] * len(queries)
        if count > self.sheet.deepest:
            return results
        faiss = load_faiss()
        wider = math.sqrt(max(1.0, count / (self.sheet.depth * RECALL_AT)))
        selector, share = None, 1.0
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            share = max(int(np.count_nonzero(allowed)), 1) / len(allowed)
        lists = max(self.sheet.nprobe * wider, 2.0 * count * self.lists / self.sheet.rows)  # enough for so many rows
        norms = np.linalg.norm(queries.astype(np.float64), axis=1)
        waiting = np.flatnonzero((norms > 0) & (norms < _LONGEST))
        for nprobe in (min(self.lists, math.ceil(lists / share)), self.lists):
            for i, rows in zip(waiting, self._search(faiss, queries[waiting], count, nprobe, selector), strict=True):
                results[i] = rows[(rows >= 0) & (rows < self.sheet.rows)]
            waiting = waiting[[len(results[i]) < count for i in waiting]]  # type: ignore[arg-type]
            if not len(waiting):
                break
        return results

    def _search(
        self, faiss: Any, queries: NDArray[np.float32], count: int, nprobe: int, selector: Any
    ) -> NDArray[np.int64]:
        """Return (m, count) rows, -1 for none."""
        parameters = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)
        if isinstance(self._index, faiss.IndexPreTransform):
            parameters = faiss.SearchParametersPreTransform(index_params=parameters)
        faiss.omp_set_num_threads(processors() if len(queries) >= _MANY else 1)
        rows: NDArray[np.int64] = self._index.search(queries, count, params=parameters)[1]
        return rows


class OpenedStructure:
    """The structure of an index folder, opened at the first search. It is safe to share between threads.

    If another structure replaces it, a thread opens that one while searches go on with the old one.
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
        """Return the structure, or None if there is none that can be used."""
        return None if self._unused else self._cached.get()

    def serving(self, state: State, metric: str) -> Structure | None:
        """Return the structure if it serves a state and a metric, else None."""
        structure = self.get()
        return structure if structure is not None and structure.serves(state, metric) else None


def sample_checksum(state: State, rows: int) -> int:
    """Return the CRC-32 of a few rows, spread evenly over the first ``rows`` of a matrix."""
    return zlib.crc32(state.scattered[np.linspace(0, rows - 1, min(_SAMPLE, rows)).astype(np.int64)].tobytes())


def checksum(opened: BinaryIO) -> int:
    """Return the CRC-32 of an open file, from its current position on."""
    value = 0
    while block := opened.read(_BLOCK_BYTES):
        value = zlib.crc32(block, value)
    return value


@dataclass(frozen=True, slots=True)
class ApproximateSearcher:
    """Approximate search over the rows of a state in one metric; ``passing`` is the (r,) mask of a filter, or None."""

    structure: Structure
    state: State
    metric: str
    passing: NDArray[np.bool_] | None = None

    def among(self, passing: NDArray[np.bool_]) -> ApproximateSearcher:
        """Return a searcher over the rows selected by an (r,) mask."""
        return replace(self, passing=passing if self.passing is None else self.passing & passing)

    def nearest(self, queries: NDArray[np.float32], k: int, after: Cursor | None = None) -> list[Neighbours]:
        """Return at most k nearest rows of each of (m, d) float32 queries; see ``Searcher.nearest``."""
        sheet, allowed = self.structure.sheet, None
        if self.passing is not None:
            allowed = self.passing[: sheet.rows]
            few = min(sheet.deepest, _FEW_VALUES // queries.shape[1])
            if np.count_nonzero(self.passing) <= few:
                searcher = self.state.searcher(self.metric, scattered=True).among(self.passing)
                return searcher.nearest(queries, k, after)
            if np.count_nonzero(allowed) <= few:  # most of the rows that pass are new, and so lie together
                return self._exact().nearest(queries, k, after)
        # The length of a query does not affect the order of normalised features, but FAISS chooses lists better if it
        # has length 1 too.
        directions = _directions(queries) if self.state.normalized else queries
        candidates = self.structure.candidates(directions, sheet.depth * max(k, RECALL_AT), allowed)
        search = partial(self._nearest, k=k, after=after, allowed=allowed)
        if len(queries) < _MANY:
            return [*map(search, queries, directions, candidates)]
        with ThreadPoolExecutor(processors(), thread_name_prefix="nearest") as pool:
            return list(pool.map(search, queries, directions, candidates))

    def _nearest(
        self,
        query: NDArray[np.float32],
        direction: NDArray[np.float32],
        candidates: NDArray[np.int64] | None,
        *,
        k: int,
        after: Cursor | None,
        allowed: NDArray[np.bool_] | None,
    ) -> Neighbours:
        """Rank the candidates of one query, and fetch more if there are too few to be sure of the result."""
        sheet, searcher = self.structure.sheet, self.state.searcher(self.metric, scattered=True)
        count = sheet.depth * max(k, RECALL_AT)  # the recall was measured with no fewer candidates
        while candidates is not None:
            is_all = len(candidates) < count
            candidates = candidates[np.isfinite(self.state.squared_norms[candidates])]  # drops removed images
            ranked = searcher.ranked(query, candidates)
            begin = 0 if after is None else self._begin(ranked, after)
            # Rows that FAISS did not name may be as far away as the last candidate, and have smaller ids.
            certain = int(np.searchsorted(ranked.distances, ranked.distances[-1])) if len(candidates) else 0
            if is_all or (count >= sheet.depth * (begin + k) and begin + k <= certain):
                hits = Neighbours(ranked.positions[begin : begin + k], ranked.distances[begin : begin + k])
                return self._with_new_rows(query, hits, k, after)
            count = max(2 * count, sheet.depth * (begin + k))
            (candidates,) = self.structure.candidates(direction[None], count, allowed)
        return self._exact().nearest(query[None], k, after)[0]

    def _begin(self, ranked: Neighbours, after: Cursor) -> int:
        """Return how many of the ranked rows come before the cursor, or at it."""
        ids = self.state.ids[ranked.positions]
        equal = (ranked.distances == after.distance) & (ids <= after.id)
        return int(np.count_nonzero((ranked.distances < after.distance) | equal))

    def _with_new_rows(self, query: NDArray[np.float32], hits: Neighbours, k: int, after: Cursor | None) -> Neighbours:
        """Merge hits with the nearest of the rows that were added since the structure was built."""
        covered = self.structure.sheet.rows
        if covered == len(self.state.ids):
            return hits
        searcher = self.state.searcher(self.metric, covered)
        if self.passing is not None:
            searcher = searcher.among(self.passing[covered:])
        new = searcher.nearest(query[None], k, after)[0]
        positions = np.concatenate([hits.positions, new.positions])
        distances = np.concatenate([hits.distances, new.distances])
        order = np.lexsort((self.state.ids[positions], distances))[:k]
        return Neighbours(positions[order], distances[order])

    def _exact(self) -> Searcher:
        searcher = self.state.searcher(self.metric)
        return searcher if self.passing is None else searcher.among(self.passing)


def _directions(queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (m, d) queries scaled to length 1; zero vectors stay zero."""
    lengths = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
    return (queries / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
