"""Evaluate an index with each of its own images as a query (leave-one-out), or with a folder of other images."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchengine.address import name_of
from searchengine.analyse.evaluation import metrics, statistics, summary
from searchengine.analyse.evaluation.metrics import Relevance, distinct
from searchengine.analyse.evaluation.ranking import Collection, Queries, measure
from searchengine.analyse.evaluation.results import (
    LEAVE_ONE_OUT,
    QUERY_FOLDER,
    Counts,
    Evaluation,
    PerQuery,
    Picture,
    Source,
    first_of,
)
from searchengine.errors import QueryError
from searchengine.extractors import Extractor
from searchengine.extractors.spec import ExtractorSpec
from searchengine.images import FoundFile, Walk
from searchengine.index.metrics import check_metric
from searchengine.index.protocol import Index, images_by_row
from searchengine.index.storage import storage_of
from searchengine.index.types import ImageRecord
from searchengine.indexing.labels import how_to_label
from searchengine.indexing.model import RunExtractor
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.run import update_with
from searchengine.indexing.scan import check_folder
from searchengine.progress import QUIET, Progress

# -- a folder of query images -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class QuerySet:
    """Query images: their ``records`` and (q, d) float32 ``features``; ``unreadable`` counts unusable files."""

    folder: Path
    records: list[ImageRecord]
    features: NDArray[np.float32]
    unreadable: int = 0


def check_queries(folder: Path) -> Path:
    """Return the absolute path of a folder of query images, in which the folder of each image names its label.

    QueryError if it is missing or holds no image; IndexingError if it is not a folder.
    """
    folder = folder.expanduser().absolute()
    if not folder.exists():
        raise QueryError(
            f"The query folder {folder} does not exist. --queries takes a folder with a subfolder for each label."
        )
    check_folder(folder)
    if not any(isinstance(file, FoundFile) for file in Walk(folder)):
        raise QueryError(f"The query folder {folder} holds no image.")
    return folder


def read_queries(folder: Path, extractor: Extractor, progress: Progress = QUIET) -> QuerySet:
    """Read and embed every image of a folder through a temporary index, and report unreadable files.

    Raises:
        QueryError: the folder holds no usable image.
        IndexingError: the folder cannot be listed.
    """
    folder = check_queries(folder)
    with tempfile.TemporaryDirectory() as scratch:
        storage = storage_of(Path(scratch, "queries"))
        summary = update_with(
            RunExtractor.of(extractor, words=False), [folder], storage, IndexingOptions(ann="off"), progress
        )
        if not summary.images:
            raise QueryError(
                f"None of the {summary.skipped} files in the query folder {folder} can be used as an image."
            )
        with closing(storage.read()) as index:
            state = index.state()
            images = images_by_row(index, state)
            features = np.array(state.rows[list(images)])
    return QuerySet(folder, list(images.values()), features, summary.skipped)


# -- protocols --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """How to evaluate.

    Attributes:
        metric: None for the metric of the index.
        name: the name in reports; None for the name of the index folder.
        recall_at: the k of recall@k.
        seed: the seed for resampling.
        comparable: also measure without each group of photos, as ``compare`` requires.
    """

    metric: str | None = None
    name: str | None = None
    recall_at: tuple[int, ...] = metrics.RECALL_AT
    seed: int = 0
    comparable: bool = False


def leave_one_out(index: Index, options: EvaluationOptions | None = None, progress: Progress = QUIET) -> Evaluation:
    """Query with each labelled image of an index, and rank all others.

    Images without a label are ranked but are not queries, and neither are images whose labels no other image has.

    Raises:
        QueryError: there are no labels, or so few that there is nothing to measure.
        UnknownNameError: there is no such metric.
    """
    options = options or EvaluationOptions()
    images = _read(index)
    relevance = images.collection.relevance
    labels = relevance.of_images
    queries = Queries.leave_one_out(images.collection)
    chosen = np.flatnonzero(queries.answerable(relevance))
    if not len(chosen):
        raise QueryError(
            f"No two images of {images.where} share a label, so no query has anything to find. Give the same label to "
            "images that show the same thing, for instance by a folder for each label."
        )
    copies = sum(len(positions) for positions in images.by_content().values() if len(positions) > 1)
    notes = []
    if copies:
        notes.append(
            f"{copies} image{'s have' if copies > 1 else ' has'} the same bytes as another in the index. Such copies "
            "find each other at distance 0, which makes every figure look better."
        )
    task = _Task(
        LEAVE_ONE_OUT,
        queries.take(chosen),
        [images.picture(i) for i in chosen.tolist()],
        Counts(
            collection=len(labels),
            labels=len(relevance.labels),
            queries=len(chosen),
            unlabelled=len(labels) - relevance.labelled,
            irrelevant=relevance.labelled - len(chosen),
            alone=tuple(label for label in relevance.labels if relevance.size(label) == 1),
            copies=copies,
            several_labels=sum(len(labels[i]) > 1 for i in chosen),
        ),
        notes,
    )
    return _evaluate(index, images, task, options, progress)


def query_folder(
    index: Index, query_set: QuerySet, options: EvaluationOptions | None = None, progress: Progress = QUIET
) -> Evaluation:
    """Query with images from outside the index, read by ``read_queries``.

    An image of the index with the same bytes as a query is left out of its ranking.

    Raises:
        QueryError: the index has no labels, or none of the labels of the queries.
        UnknownNameError: there is no such metric.
    """
    options = options or EvaluationOptions()
    images = _read(index)
    relevance = images.collection.relevance
    same = images.by_content()
    records = query_set.records
    left_out = [np.array(same.get(record.content_hash or "", ()), dtype=np.int64) for record in records]
    labels = [distinct(record.labels) for record in records]
    queries = Queries(labels, left_out, query_set.features.__getitem__)
    answerable = queries.answerable(relevance)
    if not answerable.any():
        raise QueryError(_nothing_relevant(query_set, images))
    chosen = np.flatnonzero(answerable)
    copies = sum(1 for i in chosen if len(left_out[i]))
    unknown = sorted({label for query_labels in labels for label in query_labels if not relevance.size(label)})
    notes = []
    if copies:
        notes.append(
            f"{copies} of the queries {'are' if copies > 1 else 'is'} also in the index, byte for byte. The copy is "
            "left out of the ranking of its query."
        )
    if unknown:
        notes.append(f"The index does not have these labels of queries: {first_of(unknown)}.")
    task = _Task(
        QUERY_FOLDER,
        queries.take(chosen),
        [Picture(records[i].path, labels[i], records[i].file) for i in chosen],
        Counts(
            collection=len(images.records),
            labels=len(relevance.labels),
            queries=len(chosen),
            unlabelled=sum(not query_labels for query_labels in labels),
            irrelevant=sum(bool(labels[i]) for i in np.flatnonzero(~answerable)),
            alone=tuple(unknown),
            unreadable=query_set.unreadable,
            copies=copies,
            several_labels=sum(len(labels[i]) > 1 for i in chosen),
        ),
        notes,
    )
    return _evaluate(index, images, task, options, progress)


@dataclass(frozen=True, slots=True, eq=False)
class _Images:
    """The images of an index at the start of the evaluation, ordered by id."""

    started: float
    where: str
    metric: str
    source: Source
    collection: Collection
    records: list[ImageRecord]

    def picture(self, position: int) -> Picture:
        record = self.records[position]
        return Picture(record.path, self.collection.relevance.of_images[position], record.file)

    def by_content(self) -> dict[str, list[int]]:
        """Return the positions of the images with each content hash."""
        positions: dict[str, list[int]] = {}
        for position, record in enumerate(self.records):
            if record.content_hash is not None:
                positions.setdefault(record.content_hash, []).append(position)
        return positions


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """The queries of a protocol, and a picture of each."""

    protocol: str
    queries: Queries
    pictures: list[Picture]
    counts: Counts
    notes: list[str]


def _read(index: Index) -> _Images:
    """Read the images of an index; QueryError if their labels do not tell right answers from wrong ones."""
    started = time.monotonic()
    state = index.state()
    where = f"the index {index.address}"
    images = images_by_row(index, state)
    rows, records = np.array(list(images), dtype=np.int64), list(images.values())
    relevance = Relevance([record.labels for record in records])
    if not relevance.labels:
        raise QueryError(
            f"No image of {where} has a label, so there are no right answers to measure by. "
            f"{how_to_label(ExtractorSpec.from_json(state.spec))}"
        )
    if len(relevance.labels) == 1 and relevance.labelled == len(records):
        raise QueryError(
            f"All images of {where} have one label {relevance.labels[0]!r}, so every answer is right and there is "
            "nothing to measure. Index images of at least two classes together."
        )
    collection = Collection(state.rows, state.squared_norms, rows, relevance)
    return _Images(started, where, state.metric, Source.of(state.fingerprint, records), collection, records)


def _evaluate(index: Index, images: _Images, task: _Task, options: EvaluationOptions, progress: Progress) -> Evaluation:
    """Rank the images for every query, measure the rankings, and summarise the measures."""
    metric = check_metric(options.metric or images.metric)
    collection = images.collection
    if options.comparable:
        collection = replace(collection, groups=statistics.groups_of([record.path for record in images.records]))
    progress.start(len(task.queries))
    measured = measure(collection, task.queries, metric, recall_at=options.recall_at, advance=progress.advance)
    random = np.random.default_rng(options.seed)
    overall, _ = summary.figures(measured, random)
    examples = summary.Examples(measured, task.pictures.__getitem__, images.picture)
    mistakes = summary.count_mistakes(measured)
    classes, by_class = summary.classes(measured, mistakes, random)
    return Evaluation(
        name=options.name or name_of(index.address),
        extractor=index.manifest("extractor") or "",
        metric=metric,
        protocol=task.protocol,
        counts=task.counts,
        figures=overall,
        by_class=by_class,
        classes=classes,
        hardest=examples.hardest(classes),
        confused=examples.confused(mistakes),
        curve=tuple(measured.curve.tolist()),
        notes=tuple(task.notes),
        seconds=time.monotonic() - images.started,
        confusion=mistakes.shares,
        per_query=PerQuery(
            tuple(picture.path for picture in task.pictures),
            tuple(task.queries.labels),
            measured.values,
            measured.replicates,
        ),
        source=images.source,
    )


def _nothing_relevant(query_set: QuerySet, images: _Images) -> str:
    """Explain why the index has nothing relevant to any query."""
    counts = Counter(label for record in query_set.records for label in record.labels)
    if not counts:
        return (
            f"The query images in {query_set.folder} are not in subfolders, so they have no label. Put them in folders "
            "named after the labels of the index."
        )
    query_labels = [label for label, _ in counts.most_common()]
    relevance = images.collection.relevance
    shared = [label for label in query_labels if relevance.size(label)]
    if shared:
        return (
            f"Of {first_of(shared)}, the index holds only the query images themselves, byte for byte. Index other "
            "images of these classes, or evaluate without --queries."
        )
    return (
        f"The index has none of the labels of the query images. {query_set.folder} has {first_of(query_labels)}; the "
        f"index has {first_of(relevance.labels)}. The label of a query image is the name of its folder."
    )
