"""Building the structure for approximate search: when it pays, how it is made, and how widely it is searched.

FAISS reduces long features to their principal components, sorts them into lists by k-means, and keeps a byte for each
component (PCA, IVF, SQ8). For short features it keeps half a byte for every two numbers (PQ; Andre et al., "Cache
locality is not enough", 2015). Such codes are read four times as quickly; they need more candidates, but short features
are quickly measured.

Calibration then determines how many lists a search reads and how many candidates it measures: as few as find nearly all
that exact search finds. It uses queries whose neighbours are known, once when the structure is built, and again for
each computation over a whole set. A row of the matrix is found in fewer lists than a picture from outside, because it
lies in one of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import timestamp
from searchengine.errors import IndexDamagedError, IndexingError, QueryError, SearchEngineError
from searchengine.files import output_file
from searchengine.index.approximate import (
    RECALL_AT,
    STRUCTURE,
    TOO_LONG,
    ApproximateSearcher,
    Structure,
    StructureSheet,
    checksum,
    load_faiss,
    sample_checksum,
    structures,
)
from searchengine.index.catalog import Catalog
from searchengine.index.exact import Neighbours, Searcher
from searchengine.index.features import matrices
from searchengine.index.metrics import EUCLIDEAN, METRICS, metric_title, rank_alike
from searchengine.index.state import State, load_state
from searchengine.processors import processors
from searchengine.progress import QUIET, Progress

_NEW = 0.2  # share of new rows from which a structure is built again
_COMPONENTS = (256, 512, 1024)  # numbers of components to try, from coarse to fine
_FEWEST_COMPONENTS = 32
_SHORT = 341  # length of a feature up to which all its numbers are kept
_FEWEST_IN_CODES = 32  # rows for codes of half a byte: FAISS derives 16 of them from at least half the rows
_SMALLER = 0.75  # share of the dimension up to which components pay; beyond that, whole features do as well
_CODE_BYTES = 2**30  # maximum size of a structure with a byte for each component of each row
_PER_LIST = 64  # rows per list that k-means is trained with
_FEWEST_PER_LIST = 80  # rows per list: FAISS needs 39, and half the rows of a small index are in the sample
_MOST_LISTS = 65_536
_TRAINING_VALUES = 2**26  # float32 values in memory at once
_LONGEST = 1e15  # norm of a feature whose square still fits into float32
_BLOCK_BYTES = 2**26  # bytes of rows added at once
_SMALL_BYTES = 2**27  # size of a matrix that any machine reads in less than TOO_LONG
_TIMED_BYTES = 2**28  # bytes of rows used to time an exact search
_DEEPEST_SHARE, _DEEPEST = 64, 1000  # StructureSheet.deepest: rows / 64, but at least 1000

RECALL = 0.99  # the recall that is promised
_DEPTHS = (4, 8, 16, 32)  # candidates for each neighbour, to try
_AIM = 0.9965  # the recall to aim at: for photos held out it was up to 0.007 lower than for the sample
_QUERIES = 256  # images, or half of them images and half pictures from outside
_QUERIES_AT_ONCE = 64
_WHOLE_SET_AIM, _WHOLE_SET_DEPTHS = 0.993, (2, *_DEPTHS)
_CANDIDATE_COST = 4  # cost of a byte of a candidate, read at random and measured in float64, relative to that of a list
_FINEST_SHARE, _MOST_SHARE = 256, 4  # lists to try: from 1/256 of all lists to 1/4, or to all of them


# -- when it pays -----------------------------------------------------------------------------------------------------


def update_structure(folder: Path, wanted: str, progress: Progress = QUIET) -> None:
    """Build the structure of an index at the end of a run, if it is due; the caller holds the lock.

    Args:
        folder: the index folder.
        wanted: "auto" builds it if an exact search takes long, and again when a fifth of the rows are new or it cannot
            be used; failures are reported as remarks. "on" builds it however quick exact search is. "off" does nothing.
        progress: receives remarks and the progress of the work.

    Raises:
        SearchEngineError: it is "on" but cannot be built.
    """
    if wanted == "off" or (wanted == "auto" and STRUCTURE.identity(folder) is None and _is_small(folder)):
        return
    with closing(Catalog.open(folder)) as catalog:
        state = load_state(folder, catalog, None)
    try:
        sheet = _usable(folder, state, progress)
        if sheet is not None and len(state.ids) - sheet.rows <= _NEW * len(state.ids):
            return
        if not rank_alike(state.metric, EUCLIDEAN, normalized=state.normalized):
            raise QueryError(f"This index ranks by {metric_title(state.metric)}, so its searches stay exact.")
        if wanted == "on" or exact_seconds(state, state.metric) > TOO_LONG:
            sheet = build(folder, state, progress)
            progress.say(f"Quick search finds {sheet.found} of what exact search finds.")
        else:
            remove(folder)
    except SearchEngineError as error:
        if wanted == "on":
            raise
        progress.say(f"Searches stay exact. {error}")


def _is_small(folder: Path) -> bool:
    return sum(file.stat().st_size for file in matrices(folder)) <= _SMALL_BYTES


def _usable(folder: Path, state: State, progress: Progress) -> StructureSheet | None:
    """Return the sheet of the structure if that can be used, and report damage."""
    try:
        stored = STRUCTURE.load(folder)
        if stored is not None and stored.sheet.covers(state):
            return Structure.of_sheet(folder, stored.sheet).sheet
    except IndexDamagedError as error:
        progress.say(str(error))
    return None


def remove(folder: Path) -> None:
    """Delete the structure of an index, so that searches are exact."""
    STRUCTURE.path(folder).unlink(missing_ok=True)
    _remove_others(folder)


def exact_seconds(state: State, metric: str) -> float:
    """Return the duration of one exact search on this machine, extrapolated from some of the rows."""
    rows = max(1, min(len(state.ids), _TIMED_BYTES // (4 * state.rows.shape[1])))
    searcher = Searcher(metric, state.rows[:rows], state.squared_norms[:rows], state.ids[:rows])
    seconds: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        searcher.nearest(np.asarray(state.rows[:1]), 1)
        seconds.append(time.perf_counter() - start)
    return float(min(seconds) * len(state.ids) / rows)


# -- how it is made ---------------------------------------------------------------------------------------------------


def build(folder: Path, state: State, progress: Progress = QUIET) -> StructureSheet:
    """Build the structure of an index and replace the old one; the caller holds the lock.

    Raises:
        MissingPackageError: FAISS is not installed.
        QueryError: FAISS cannot handle these features.
        IndexingError: the folder cannot be written to.
    """
    load_faiss()
    live = state.live
    if not len(live) or not math.sqrt(state.squared_norms[live].max()) < _LONGEST:
        raise QueryError("There are no features that approximate search can handle. Searches stay exact.")
    sample = Sample.of(state, RECALL_AT, _QUERIES // 2, with_outside=True)
    best: StructureSheet | None = None
    factories = _factories(len(live), state.rows.shape[1])
    for factory in factories:
        progress.say(f"Building a structure for quick search ({factory}). The index can be searched meanwhile.")
        file = _write(folder, _trained_and_filled(state, sample, factory, progress))
        structure = Structure.of_sheet(folder, _uncalibrated_sheet(file, state, factory))
        sheet = calibrate(structure, state, sample, widest=factory == factories[-1])
        best = sheet if best is None or sheet.recall > best.recall else best
        if best.recall >= RECALL:
            break
    assert best is not None
    STRUCTURE.save(folder, best)
    _remove_others(folder, best.file)
    return best


def _remove_others(folder: Path, kept: str | None = None) -> None:
    """Delete all but one of FAISS's files, and those of killed builds; a reader that has mapped one keeps its data."""
    for file in (*structures(folder), *folder.glob(".approximate-*.faiss.*.part")):
        if file.name != kept:
            file.unlink(missing_ok=True)


def _factories(rows: int, dimension: int) -> list[str]:
    """Return the FAISS factory strings to try, from coarse to fine; there are about 4 * sqrt(rows) lists."""
    lists = 2 ** round(math.log2(4 * math.sqrt(rows)))
    ivf = f"IVF{max(1, min(lists, rows // _FEWEST_PER_LIST, _MOST_LISTS))}"
    reduced = [
        components
        for components in _COMPONENTS
        if components <= _SMALLER * dimension and components <= rows // 4 and components * rows <= _CODE_BYTES
    ]
    if reduced:
        return [f"PCA{components},{ivf},SQ8" for components in reduced]
    if dimension * rows <= _CODE_BYTES or rows < 4 * _FEWEST_COMPONENTS:
        codes = f"{ivf},PQ{dimension if dimension % 2 else dimension // 2}x4fs"
        short = [codes] if dimension <= _SHORT and rows >= _FEWEST_IN_CODES else []
        return [*short, f"{ivf},SQ8"]
    return [f"PCA{max(_FEWEST_COMPONENTS, _CODE_BYTES // rows // 8 * 8)},{ivf},SQ8"]


def _trained_and_filled(state: State, sample: Sample, factory: str, progress: Progress) -> Any:
    """Return a FAISS index of the live rows, under their row numbers.

    It is trained without the images of the sample, which will be used to judge it.
    """
    faiss = load_faiss()
    faiss.omp_set_num_threads(processors())
    live, dimension = state.live, state.rows.shape[1]
    training = np.setdiff1d(live, sample.rows) if len(live) > 2 * len(sample.rows) else live
    index = faiss.index_factory(dimension, factory)
    ivf: Any = index
    reduce: Callable[[Any], Any] = np.asarray
    if isinstance(index, faiss.IndexPreTransform):
        components, ivf = faiss.downcast_VectorTransform(index.chain.at(0)), faiss.downcast_index(index.index)
        components.train(state.rows[_choose(training, _TRAINING_VALUES // dimension)])
        reduce = components.apply
    for kmeans in (ivf.cp, *([ivf.pq.cp] if hasattr(ivf, "pq") else [])):
        kmeans.min_points_per_centroid = 1  # or FAISS prints a warning for a small index
    chosen = _choose(training, min(_PER_LIST * ivf.nlist, _TRAINING_VALUES // ivf.d))
    ivf.train(np.concatenate([reduce(state.rows[rows]) for rows in _blocks(chosen, dimension)]))
    index.is_trained = True
    progress.start(len(live), what="Quick search")
    for rows in _blocks(live, dimension):
        ivf.add_with_ids(reduce(state.rows[rows]), rows)
        progress.advance(len(rows))
    index.ntotal = ivf.ntotal
    return index


def _blocks(rows: NDArray[np.int64], dimension: int) -> Iterator[NDArray[np.int64]]:
    size = max(1, _BLOCK_BYTES // (4 * dimension))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _choose(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return at most ``count`` of the rows, ascending, drawn at random but always the same ones."""
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, count, replace=False))


def _write(folder: Path, index: Any) -> Path:
    """Let FAISS write an index to a file with a new name, which appears once it is complete."""
    file = folder / f"approximate-{uuid4().hex[:8]}.faiss"
    with output_file(file) as part:
        try:
            load_faiss().write_index(index, str(part))
        except RuntimeError as error:
            raise IndexingError(f"{file} cannot be written. Make room on its disk, and try again.") from error
    return file


def _uncalibrated_sheet(file: Path, state: State, factory: str) -> StructureSheet:
    """Return the sheet of a new file, with placeholders for what calibration determines."""
    rows = len(state.ids)
    with file.open("rb") as opened:
        value = checksum(opened)
    return StructureSheet(
        format=1,
        made=timestamp(),
        factory=factory,
        file=file.name,
        size=file.stat().st_size,
        checksum=value,
        features_file=state.features_file,
        rows=rows,
        sample=sample_checksum(state, rows),
        nprobe=1,
        depth=_DEPTHS[-1],
        deepest=max(rows // _DEEPEST_SHARE, _DEEPEST),
        recall=0.0,
        queries=0,
        exact_seconds={metric: exact_seconds(state, metric) for metric in METRICS},
    )


# -- how widely it is searched ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """Queries whose neighbours are known: images, then pictures from outside, which are harder to find neighbours for.

    A picture from outside is made from an image: it lies as far beyond the image, seen from the last of the image's
    neighbours, as the image lies beyond that neighbour.

    Attributes:
        rows: the rows of the images, (i,).
        queries: (q, d), the images first.
        limits: (q,), the distance of the last neighbour of each query.
        wanted: the number of neighbours. An image is not one of its own neighbours.
    """

    rows: NDArray[np.int64]
    queries: NDArray[np.float32]
    limits: NDArray[np.float64]
    wanted: int

    @classmethod
    def of(
        cls, state: State, wanted: int, count: int, *, with_outside: bool = False, progress: Progress = QUIET
    ) -> Sample:
        """Return a sample of at most ``count`` images and, if ``with_outside``, as many pictures from outside."""
        rows, wanted = _choose(state.live, count), min(wanted, state.count - 1)
        images = np.asarray(state.scattered[rows])
        if not wanted:
            return cls(rows, images, np.zeros(len(rows)), wanted)
        searcher, nearest = state.searcher(EUCLIDEAN), list[Neighbours]()
        progress.start(len(rows), what="Exact searches, for comparison")
        for start in range(0, len(rows), _QUERIES_AT_ONCE):
            nearest += searcher.nearest(images[start : start + _QUERIES_AT_ONCE], wanted + 1)
            progress.advance(len(nearest) - start)
        others = [np.flatnonzero(each.positions != row)[wanted - 1] for row, each in zip(rows, nearest, strict=True)]
        limits = np.array([each.distances[at] for at, each in zip(others, nearest, strict=True)])
        if not with_outside:
            return cls(rows, images, limits, wanted)
        last = np.array([each.positions[at] for at, each in zip(others, nearest, strict=True)])
        outside = 2 * images - np.asarray(state.scattered[last])
        beyond = [each.distances[-1] for each in searcher.nearest(outside, wanted)]
        return cls(rows, np.concatenate([images, outside]), np.concatenate([limits, beyond]), wanted)


def whole_set_searcher(
    structure: Structure, state: State, metric: str, k: int, progress: Progress = QUIET
) -> Searcher | ApproximateSearcher:
    """Return a searcher that finds about 99 % of the k nearest rows of every row of a state, or an exact one."""
    structure = structure.covering(state)
    sample = Sample.of(state, k, _QUERIES, progress=progress)
    sheet = calibrate(structure, state, sample, aim=_WHOLE_SET_AIM, depths=_WHOLE_SET_DEPTHS)
    if sheet.recall < RECALL:
        return state.searcher(metric)
    progress.say(f"By quick search, which finds {sheet.found} of the nearest.")
    return ApproximateSearcher(structure.with_sheet(sheet), state, metric)


def calibrate(
    structure: Structure,
    state: State,
    sample: Sample,
    *,
    aim: float = _AIM,
    depths: tuple[int, ...] = _DEPTHS,
    widest: bool = True,
) -> StructureSheet:
    """Return the sheet with the cheapest numbers of lists and candidates that reach ``aim``, or else the best ones.

    ``widest`` says whether all lists may be searched for that.
    """
    best = structure.sheet
    for nprobe, depth in _by_cost(structure.lists, structure.list_bytes, state.rows.shape[1], depths, widest=widest):
        tried = replace(structure.sheet, nprobe=nprobe, depth=depth, queries=len(sample.queries))
        tried = replace(tried, recall=_recall(structure.with_sheet(tried), state, sample))
        best = tried if tried.recall > best.recall or best is structure.sheet else best
        if best.recall >= aim:
            break
    return best


def _by_cost(
    lists: int, list_bytes: float, dimension: int, depths: tuple[int, ...] = _DEPTHS, *, widest: bool
) -> list[tuple[int, int]]:
    """Return the (lists, candidates for each neighbour) to try, the cheapest first.

    ``list_bytes`` is the size of the codes in a list; a row of the matrix has ``dimension`` float32.
    """
    most = lists if widest else max(1, lists // _MOST_SHARE)
    first = max(1.0, lists / _FINEST_SHARE)
    steps = math.ceil(2 * math.log2(max(1.0, most / first)))
    nprobes = {most, *(min(most, math.ceil(first * 2 ** (step / 2))) for step in range(steps))}
    candidate_bytes = _CANDIDATE_COST * 4 * dimension
    return sorted(
        ((nprobe, depth) for nprobe in nprobes for depth in depths),
        key=lambda each: each[0] * list_bytes + each[1] * RECALL_AT * candidate_bytes,
    )


def _recall(structure: Structure, state: State, sample: Sample) -> float:
    """Return the share of the nearest that searches find, for images or for pictures from outside, the lower one."""
    if not sample.wanted:
        return 1.0
    searcher, images = ApproximateSearcher(structure, state, EUCLIDEAN), len(sample.rows)
    results = searcher.nearest(sample.queries[:images], sample.wanted + 1)
    near = [each.distances[each.positions != row] for row, each in zip(sample.rows, results, strict=True)]
    near += [each.distances for each in searcher.nearest(sample.queries[images:], sample.wanted)]
    counts = [np.count_nonzero(distances <= limit) for distances, limit in zip(near, sample.limits, strict=True)]
    shares = np.minimum(np.array(counts) / sample.wanted, 1.0)
    return float(min(part.mean() for part in (shares[:images], shares[images:]) if len(part)))
