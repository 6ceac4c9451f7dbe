"""The last evaluation of an index is kept with it, as JSON, so that the page can show what took minutes to measure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from searchengine.analyse.evaluation.results import Evaluation
from searchengine.derived import Derived, Source, Status, timestamp
from searchengine.index.local import LocalIndex


@dataclass(frozen=True, slots=True)
class EvaluationSheet:
    """What the file holds; ``confusion`` is (label, other label, share)."""

    format: Literal[1]
    made: str
    fingerprint: str
    version: str
    evaluation: Evaluation
    confusion: tuple[tuple[str, str, float], ...]


EVALUATION = Derived("evaluation.json", EvaluationSheet, command="searchengine evaluate")


@dataclass(frozen=True, slots=True)
class KeptEvaluation:
    """An evaluation as it was stored; ``made`` is ISO 8601 in UTC.

    ``stale``: images or labels have changed since, or another extractor has made the features. ``ids`` are the images
    of that path now.
    """

    evaluation: Evaluation
    made: str
    stale: bool
    ids: Mapping[str, int]


def evaluation_source(index: LocalIndex) -> Source:
    """What an evaluation rests on: it differs when an image comes, goes, or changes its labels or content."""
    return _source_and_ids(index)[0]


def keep_evaluation(index: LocalIndex, evaluation: Evaluation, source: Source) -> Path:
    """Keep an evaluation with its index; IndexingError if the folder cannot be written to.

    ``source`` is ``evaluation_source`` from before the evaluation began.
    """
    confusion = tuple((label, other, share) for (label, other), share in evaluation.confusion.items())
    sheet = EvaluationSheet(1, timestamp(), source.fingerprint, source.version, evaluation, confusion)
    return EVALUATION.save(index.folder, sheet)


def load_evaluation(index: LocalIndex) -> KeptEvaluation | None:
    """The evaluation that is kept with an index, or None; IndexDamagedError if it cannot be read.

    ``per_query`` is not kept, and no picture has a file: a path in a file of the index is not one to open.
    """
    kept = EVALUATION.load(index.folder)
    if kept is None:
        return None
    source, ids = _source_and_ids(index)
    confusion = {(label, other): share for label, other, share in kept.sheet.confusion}
    evaluation = dataclasses.replace(kept.sheet.evaluation, confusion=confusion)
    return KeptEvaluation(evaluation, kept.sheet.made, kept.status(source) is Status.STALE, ids)


def _source_and_ids(index: LocalIndex) -> tuple[Source, dict[str, int]]:
    """The source, and the id of each path."""
    digest = hashlib.sha256()
    ids: dict[str, int] = {}
    fingerprint = index.fingerprint
    for record in index.known(sorted(index.ids.tolist())):
        ids.setdefault(record.path, record.id)
        digest.update(f"{record.id}\0{record.content_hash}\0{json.dumps(record.labels)}\n".encode())
    return Source(fingerprint, digest.hexdigest()[:16]), ids
