"""How an index is asked: each of its own images (leave-one-out), or a folder of images that stand apart from it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from searchengine.analyse.evaluation import intervals, metrics, summary
from searchengine.analyse.evaluation.jackknife import groups_of
from searchengine.analyse.evaluation.measuring import Queries, measure, with_something_relevant
from searchengine.analyse.evaluation.querying import QuerySet
from searchengine.analyse.evaluation.ranking import Collection, Positions
from searchengine.analyse.evaluation.relevance import Relevance, distinct
from searchengine.analyse.evaluation.results import Counts, Evaluation, PerQuery, Picture
from searchengine.errors import QueryError
from searchengine.extractors.spec import ExtractorSpec
from searchengine.index.local import LocalIndex
from searchengine.index.metrics import check_metric
from searchengine.index.types import ImageRecord
from searchengine.indexing.labels import how_to_label
from searchengine.progress import QUIET, Progress

LEAVE_ONE_OUT = "leave-one-out"
QUERY_FOLDER = "query folder"


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """``metric`` None: that of the index. ``name`` None: the name of the index folder. ``seed`` of the resampling.
    ``comparable``: measure without each group of photos too, which ``compare`` needs.
    """

    metric: str | None = None
    name: str | None = None
    recall_at: tuple[int, ...] = metrics.RECALL_AT
    resamples: int = intervals.RESAMPLES
    seed: int = 0
    comparable: bool = False


def leave_one_out(
    index: LocalIndex, options: EvaluationOptions | None = None, progress: Progress | None = None
) -> Evaluation:
    """Ask for each labelled image of an index, and rank all others.

    Images without a label are ranked, but are no queries; nor are those with whom no other image shares a label.

    Raises:
        QueryError: no labels, or so few that there is nothing to measure.
        UnknownNameError: no such metric.
    """
    options, progress = options or EvaluationOptions(), progress or QUIET
    run = _Run(index, options)
    relevance = run.relevance
    alone: list[Positions] = [np.array([i], dtype=np.int64) for i in range(len(run.labels))]
    able = with_something_relevant(relevance, run.labels, alone)
    asking = np.flatnonzero(able)
    if not len(asking):
        raise QueryError(
            f"No two images of {run.where} share a label, so no query has anything to find. "
            "Labels name what several images show: a folder of images each, for instance."
        )
    queries = Queries(
        [run.labels[i] for i in asking], [alone[i] for i in asking], lambda part: run.collection.features(asking[part])
    )
    singles = tuple(label for label in relevance.labels if relevance.size(label) == 1)
    copies = run.copies()
    notes = []
    if copies:
        notes.append(
            f"{_images(copies)} {_have(copies)} the very bytes of another in the index. Such copies find one another "
            "at distance 0, which flatters every figure."
        )
    counts = Counts(
        collection=len(run.labels),
        labels=len(relevance.labels),
        queries=len(asking),
        unlabelled=len(run.labels) - relevance.labelled,
        irrelevant=relevance.labelled - len(asking),
        alone=singles,
        copies=copies,
        several_labels=sum(len(run.labels[i]) > 1 for i in asking),
    )
    keys = [run.records[i].path for i in asking]
    pictures = [run.picture(int(i)) for i in asking]
    return run.finish(LEAVE_ONE_OUT, queries, keys, pictures, counts, notes, progress)


def query_folder(
    index: LocalIndex, asked: QuerySet, options: EvaluationOptions | None = None, progress: Progress | None = None
) -> Evaluation:
    """Ask with images that stand apart from the index, as ``querying.read_queries`` gives them.

    An image of the index with the very bytes of a query is left out of its ranking.

    Raises:
        QueryError: no labels in the index, or none of those of the queries.
        UnknownNameError: no such metric.
    """
    options, progress = options or EvaluationOptions(), progress or QUIET
    run = _Run(index, options)
    same = run.by_content()
    left_out = [np.array(same.get(digest, ()), dtype=np.int64) for digest in asked.content]
    labels = [distinct(of_query) for of_query in asked.labels]
    able = with_something_relevant(run.relevance, labels, left_out)
    if not able.any():
        raise QueryError(_nothing_known(asked, run))
    asking = np.flatnonzero(able)
    queries = Queries(
        [labels[i] for i in asking],
        [left_out[i] for i in asking],
        lambda part: np.asarray(asked.features[asking[part]]),
    )
    notes = []
    copies = sum(1 for i in asking if len(left_out[i]))
    if copies:
        notes.append(
            f"{copies} of the queries {_are(copies)} in the index too, byte for byte. In the ranking of such a query "
            "its copy is left out."
        )
    unknown = sorted({label for of_query in labels for label in of_query if not run.relevance.size(label)})
    if unknown:
        notes.append(f"Labels of queries that the index does not have: {_named(unknown)}.")
    counts = Counts(
        collection=len(run.labels),
        labels=len(run.relevance.labels),
        queries=len(asking),
        unlabelled=sum(1 for of_query in labels if not of_query),
        irrelevant=sum(1 for of_query, one in zip(labels, able, strict=True) if of_query and not one),
        alone=tuple(unknown),
        unreadable=asked.unreadable,
        copies=copies,
        several_labels=sum(len(labels[i]) > 1 for i in asking),
    )
    keys = [asked.paths[i] for i in asking]
    pictures = [Picture(asked.paths[i], labels[i], asked.files[i]) for i in asking]
    return run.finish(QUERY_FOLDER, queries, keys, pictures, counts, notes, progress)


@dataclass(slots=True)
class _Run:
    """One index as it stands when the evaluation begins."""

    index: LocalIndex
    options: EvaluationOptions
    metric: str = ""
    started: float = field(default_factory=time.monotonic)
    collection: Collection = field(init=False)
    records: list[ImageRecord] = field(init=False)
    labels: list[tuple[str, ...]] = field(init=False)
    relevance: Relevance = field(init=False)

    def __post_init__(self) -> None:
        state = self.index.state()
        self.metric = check_metric(self.options.metric or state.metric)
        columns = state.live[np.argsort(state.ids[state.live], kind="stable")]
        ids = state.ids[columns]
        self.collection = Collection(state.rows, state.norm2, columns, ids)
        known = {record.id: record for record in self.index.known(ids.tolist())}
        self.records = [known.get(id_) or _gone(id_) for id_ in ids.tolist()]
        self.labels = [distinct(record.labels) for record in self.records]
        self.relevance = Relevance(self.labels)
        if not self.relevance.labels:
            raise QueryError(
                f"No image of {self.where} has a label, so nothing says what a right answer is. "
                f"{how_to_label(ExtractorSpec.from_json(state.spec))}"
            )
        if len(self.relevance.labels) == 1 and self.relevance.labelled == len(self.labels):
            raise QueryError(
                f"All images of {self.where} carry the one label {self.relevance.labels[0]!r}: whatever comes first is "
                "right, and there is nothing to measure. Index images of at least two classes together."
            )

    @property
    def where(self) -> str:
        return f"the index {self.index.folder}"

    def picture(self, position: int) -> Picture:
        record = self.records[position]
        return Picture(record.path, self.labels[position], record.file)

    def by_content(self) -> dict[str, list[int]]:
        """content hash -> positions."""
        found: dict[str, list[int]] = {}
        for position, record in enumerate(self.records):
            if record.content_hash is not None:
                found.setdefault(record.content_hash, []).append(position)
        return found

    def copies(self) -> int:
        """How many images have the bytes of another."""
        return sum(len(positions) for positions in self.by_content().values() if len(positions) > 1)

    def finish(
        self,
        protocol: str,
        queries: Queries,
        keys: Sequence[str],
        pictures: Sequence[Picture],
        counts: Counts,
        notes: list[str],
        progress: Progress,
    ) -> Evaluation:
        """Rank, measure, sum up."""
        options = self.options
        progress.start(len(queries), 0)
        measured = measure(
            self.collection,
            self.relevance,
            queries,
            self.metric,
            recall_at=options.recall_at,
            groups=groups_of([record.path for record in self.records]) if options.comparable else None,
            advance=progress.advance,
        )
        random = np.random.default_rng(options.seed)
        overall, _ = summary.figures(measured, options.resamples, random)
        of_label = summary.members(queries.labels)
        of_label = {label: of_label[label] for label in of_label if self.relevance.size(label)}
        wrong, places = summary.confusion(measured, queries.labels, self.labels)
        wrong = {pair: count for pair, count in wrong.items() if pair[0] in of_label}
        ordered, by_class = summary.classes(
            measured, self.relevance, of_label, wrong, places, options.resamples, random
        )
        return Evaluation(
            name=options.name or self.index.folder.resolve().name,
            extractor=self.index.manifest("extractor") or "",
            metric=self.metric,
            protocol=protocol,
            counts=counts,
            figures=overall,
            by_class=by_class,
            classes=ordered,
            hardest=summary.hardest(measured, ordered, of_label, pictures.__getitem__, self.picture),
            confused=summary.confused(
                measured, of_label, self.labels, wrong, places, pictures.__getitem__, self.picture
            ),
            curve=tuple(measured.curve.tolist()),
            notes=tuple(notes),
            seconds=time.monotonic() - self.started,
            confusion={pair: count / places[pair[0]] for pair, count in wrong.items()},
            per_query=PerQuery(tuple(keys), tuple(queries.labels), _fixed(measured.values), measured.replicates),
        )


def _fixed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    values.setflags(write=False)
    return values


def _gone(id_: int) -> ImageRecord:
    """An image that was removed since the run began: its row still stands in the state that is ranked."""
    return ImageRecord(id_, f"#{id_}", None, (), None, None, None, None, None, None)


def _nothing_known(asked: QuerySet, run: _Run) -> str:
    if not any(asked.labels):
        return (
            f"The query images in {asked.folder} lie in no subfolder, so they have no label. "
            "Put them in folders named as the labels of the index."
        )
    theirs = [label for label, _ in Counter(label for of_query in asked.labels for label in of_query).most_common()]
    shared = [label for label in theirs if run.relevance.size(label)]
    if shared:
        return (
            f"The index holds nothing of {_named(shared)} but the query images themselves, byte for byte. "
            "Index other images of these classes, or evaluate without --queries."
        )
    return (
        f"The index knows none of the labels of the query images. {asked.folder} has {_named(theirs)}; "
        f"the index has {_named(run.relevance.labels)}. The name of the folder that an image lies in is its label."
    )


def _named(labels: Sequence[str], most: int = 5) -> str:
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more


def _images(count: int) -> str:
    return f"{count} image{'s' if count > 1 else ''}"


def _have(count: int) -> str:
    return "have" if count > 1 else "has"


def _are(count: int) -> str:
    return "are" if count > 1 else "is"
