"""Building the structure for approximate search: when it pays, and how it is made.

FAISS reduces long features to their principal components, sorts them into lists by k-means, and keeps a byte for each
component (PCA, IVF, SQ8). Of short ones it keeps half a byte for each two numbers (PQ; Andre et al., "Cache locality is
not enough", 2015): such codes are read four times as quickly, and the more candidates that they need are soon measured.
How many of the lists a search reads, and how many candidates it measures, is found out by ``calibration``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import timestamp
from searchengine.errors import IndexDamagedError, IndexingError, QueryError, SearchEngineError
from searchengine.files import output_file
from searchengine.index.calibration import DEPTHS, RECALL, Sample, calibrated, spread
from searchengine.index.exact import Searcher
from searchengine.index.features import matrices
from searchengine.index.local import LocalIndex
from searchengine.index.metrics import EUCLIDEAN, METRICS, metric_title, rank_alike
from searchengine.index.state import State
from searchengine.index.structure import (
    STRUCTURE,
    TOO_LONG,
    Structure,
    StructureSheet,
    checksum,
    is_of,
    load_faiss,
    sample_checksum,
    structures,
)
from searchengine.processors import processors
from searchengine.progress import QUIET, Progress

_NEW = 0.2  # of the rows, from which it is built again
_COMPONENTS = (256, 512, 1024)  # from coarse to fine
_FEWEST_COMPONENTS = 32
_SHORT = 341  # numbers of a feature, up to which no components are taken
_FEWEST_IN_CODES = 32  # rows: FAISS chooses sixteen codes among those that it is trained with, half of them or more
_SMALLER = 0.75  # of the dimension; with more components, the features as they are do as well
_CODE_BYTES = 2**30  # that the structure of a very large index may take, a byte for each component of each row
_PER_LIST = 64  # rows that k-means sees for each list
_FEWEST_PER_LIST = 80  # rows in it; FAISS wants 39, and of a small index half are in the sample
_MOST_LISTS = 65_536
_TRAINING_VALUES = 2**26  # float32 values held at once
_LONGEST = 1e15  # a feature, whose square float32 still holds
_BLOCK_BYTES = 2**26
_SMALL_BYTES = 2**27  # of a matrix, which any machine reads in less than TOO_LONG
_TIMED_BYTES = 2**28  # of rows, by which the time of an exact search is measured
_DEEPEST_SHARE, _DEEPEST = 64, 1000  # of the rows, or at least; see StructureSheet.deepest


def keep_up(folder: Path, wanted: str, progress: Progress = QUIET) -> None:
    """Build the structure of an index at the end of a run, where that is due; the caller holds the lock.

    Args:
        folder: of the index.
        wanted: "auto": where an exact search takes long, and then again when a fifth of the rows is new or it cannot be
            used; what goes wrong is said. "on": whatever an exact search takes. "off": never.
        progress: says what is done.

    Raises:
        SearchEngineError: it is wanted, and cannot be built.
    """
    if wanted == "off" or (wanted == "auto" and STRUCTURE.identity(folder) is None and _is_small(folder)):
        return
    with closing(LocalIndex.open(folder, exact=True)) as index:
        state = index.state()
    try:
        kept = _usable(folder, state, progress)
        if kept is not None and len(state.ids) - kept.rows <= _NEW * len(state.ids):
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
    """The sheet of the structure that an index has, if it can be used; else a sentence says why, if it is damaged."""
    try:
        kept = STRUCTURE.load(folder)
        if kept is not None and is_of(kept.sheet, state):
            return Structure.of_sheet(folder, kept.sheet).sheet
    except IndexDamagedError as error:
        progress.say(str(error))
    return None


def remove(folder: Path) -> None:
    """Delete the structure of an index, so that searches are exact."""
    STRUCTURE.path(folder).unlink(missing_ok=True)
    _remove_others(folder)


def exact_seconds(state: State, metric: str) -> float:
    """What one exact search takes on this machine, measured with some of the rows."""
    rows = max(1, min(len(state.ids), _TIMED_BYTES // (4 * state.rows.shape[1])))
    searcher = Searcher(metric, state.rows[:rows], state.squared_norms[:rows], state.ids[:rows])
    seconds: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        searcher.nearest(np.asarray(state.rows[:1]), 1)
        seconds.append(time.perf_counter() - start)
    return float(min(seconds) * len(state.ids) / rows)


def build(folder: Path, state: State, progress: Progress = QUIET) -> StructureSheet:
    """Build the structure of an index, and put it in place of the one that it had; the caller holds the lock.

    Raises:
        MissingPackageError: FAISS is not installed.
        QueryError: FAISS cannot work with these features.
        IndexingError: the folder cannot be written to.
    """
    load_faiss()
    live = state.live
    if not len(live) or not math.sqrt(state.squared_norms[live].max()) < _LONGEST:
        raise QueryError("There are no features that approximate search could work with. Searches stay exact.")
    sample = Sample.of(state)
    best: StructureSheet | None = None
    factories = _factories(len(live), state.rows.shape[1])
    for factory in factories:
        progress.say(f"Building a structure for quick search ({factory}). The index can be searched meanwhile.")
        file = _write(folder, _trained_and_filled(state, sample, factory, progress))
        structure = Structure.of_sheet(folder, _first_sheet(file, state, factory))
        sheet = calibrated(structure, state, sample, widest=factory == factories[-1])
        best = sheet if best is None or sheet.recall > best.recall else best
        if best.recall >= RECALL:
            break
    assert best is not None
    STRUCTURE.save(folder, best)
    _remove_others(folder, best.file)
    return best


def _remove_others(folder: Path, kept: str | None = None) -> None:
    """Delete all files of FAISS but one, also those of builds that were killed; who has one mapped keeps it."""
    for file in (*structures(folder), *folder.glob(".approximate-*.faiss.*.part")):
        if file.name != kept:
            file.unlink(missing_ok=True)


# -- what is built ----------------------------------------------------------------------------------------------------


def _factories(rows: int, dimension: int) -> list[str]:
    """What is tried in turn, from coarse to fine, as FAISS spells it. Lists: four times the square root of the rows."""
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
    """An index of FAISS with the rows that count, under their numbers.

    The lists are made without those of the sample, by which they will be judged.
    """
    faiss = load_faiss()
    faiss.omp_set_num_threads(processors())
    live, dimension = state.live, state.rows.shape[1]
    seen = np.setdiff1d(live, sample.rows) if len(live) > 2 * len(sample.rows) else live
    index = faiss.index_factory(dimension, factory)
    ivf: Any = index
    reduce: Callable[[Any], Any] = np.asarray
    if isinstance(index, faiss.IndexPreTransform):
        components, ivf = faiss.downcast_VectorTransform(index.chain.at(0)), faiss.downcast_index(index.index)
        components.train(state.rows[spread(seen, _TRAINING_VALUES // dimension)])
        reduce = components.apply
    for kmeans in (ivf.cp, *([ivf.pq.cp] if hasattr(ivf, "pq") else [])):
        kmeans.min_points_per_centroid = 1  # or FAISS prints a warning for a small index
    chosen = spread(seen, min(_PER_LIST * ivf.nlist, _TRAINING_VALUES // ivf.d))
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


def _write(folder: Path, index: Any) -> Path:
    """The file that FAISS writes, complete, under a name of its own."""
    file = folder / f"approximate-{uuid4().hex[:8]}.faiss"
    with output_file(file) as part:
        try:
            load_faiss().write_index(index, str(part))
        except RuntimeError as error:
            raise IndexingError(f"{file} cannot be written. Make room on its disk, and try again.") from error
    return file


def _first_sheet(file: Path, state: State, factory: str) -> StructureSheet:
    """Of a file that FAISS has just written; how it is to be searched is not known yet."""
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
        depth=DEPTHS[-1],
        deepest=max(rows // _DEEPEST_SHARE, _DEEPEST),
        recall=0.0,
        queries=0,
        exact_seconds={metric: exact_seconds(state, metric) for metric in METRICS},
    )
