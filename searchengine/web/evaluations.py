"""How good the index is on its own labels: the evaluation that lives with it, as a page."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from flask import Blueprint, render_template

from searchengine.analyse.evaluation import Evaluation, load_evaluation, metrics
from searchengine.analyse.evaluation.charts import curves
from searchengine.analyse.evaluation.report import shown
from searchengine.analyse.evaluation.results import Picture
from searchengine.analyse.evaluation.storing import SHEET, Kept
from searchengine.errors import IndexDamagedError, UnknownImageError
from searchengine.index.local import LocalIndex
from searchengine.web.cards import Card, card_of
from searchengine.web.seam import Engine

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Latest:
    """What there is to show; ``problem`` says why it is not what one would wish."""

    kept: Kept | None
    problem: str


class Evaluations:
    """The evaluation of an index as it stands now, read again when it or the index has changed."""

    def __init__(self, index: LocalIndex | None) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._read: tuple[Any, Latest] | None = None

    def now(self) -> Latest:
        """As it stands."""
        index = self._index
        if index is None:  # not an index that lies in a folder
            return Latest(None, "")
        try:
            stat = (index.folder / SHEET).stat()
        except OSError:
            return Latest(None, "")
        seen = (index.state().generation, stat.st_ino, stat.st_mtime_ns, stat.st_size)
        with self._lock:
            if self._read is None or self._read[0] != seen:
                self._read = (seen, _latest(index))
            return self._read[1]


def blueprint(engine: Engine) -> Blueprint:
    """``/evaluation``."""
    evaluations = Blueprint("evaluations", __name__)
    latest = Evaluations(cast("LocalIndex | None", getattr(engine, "index", None)))

    @evaluations.get("/evaluation")
    def evaluation() -> str:
        now = latest.now()
        if now.kept is None:
            return render_template("evaluation.html", one=None, problem=now.problem)
        found = now.kept.evaluation
        return render_template(
            "evaluation.html",
            one=shown(found),
            made=now.kept.made[:10],
            stale=now.kept.stale,
            problem="",
            curves=curves([(found.name, found.curve)]),
            main=metrics.MAIN,
            cards=_cards(found, now.kept),
        )

    def _cards(found: Evaluation, kept: Kept) -> dict[str, Card]:
        """The pictures of the report that are still there, by path."""
        cards = {}
        for path in {picture.path for picture in _pictures(found)}:
            image_id = kept.ids.get(path)
            if image_id is not None:
                try:
                    cards[path] = card_of(engine.record(image_id))
                except UnknownImageError:
                    continue  # removed a moment ago
        return cards

    return evaluations


def _pictures(found: Evaluation) -> Iterator[Picture]:
    examples = [hard.example for hard in found.hardest]
    examples += [example for pair in found.confused for example in pair.examples]
    for example in examples:
        yield example.query
        for place in example.places:
            yield place.picture


def _latest(index: LocalIndex) -> Latest:
    try:
        return Latest(load_evaluation(index), "")
    except IndexDamagedError as error:
        # The sentence names the file for who runs the server; the page names no path.
        _log.warning("%s", error)
        return Latest(None, f"{SHEET} in the index folder cannot be read: delete it, and measure anew.")
