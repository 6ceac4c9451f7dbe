"""How good the index is on its own labels: the evaluation that lives with it, as a page."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from flask import Blueprint, render_template

from searchengine.analyse.evaluation import Evaluation, load_evaluation, metrics
from searchengine.analyse.evaluation.charts import curves
from searchengine.analyse.evaluation.report import shown
from searchengine.analyse.evaluation.results import Picture
from searchengine.analyse.evaluation.storing import EVALUATION, KeptEvaluation
from searchengine.derived import Cached
from searchengine.errors import IndexDamagedError, UnknownImageError
from searchengine.index.local import LocalIndex
from searchengine.web.cards import Card, card_of
from searchengine.web.seam import Engine

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Latest:
    """What there is to show; ``problem`` says why it is not what one would wish."""

    kept: KeptEvaluation | None
    problem: str


def blueprint(engine: Engine) -> Blueprint:
    """``/evaluation``."""
    evaluations = Blueprint("evaluations", __name__)
    index = cast("LocalIndex | None", getattr(engine, "index", None))
    latest = Cached(lambda: _key(index), lambda: _latest(index))

    @evaluations.get("/evaluation")
    def evaluation() -> str:
        now = latest.get()
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

    def _cards(found: Evaluation, kept: KeptEvaluation) -> dict[str, Card]:
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


def _key(index: LocalIndex | None) -> Any:
    identity = None if index is None else EVALUATION.identity(index.folder)
    return None if index is None or identity is None else (index.state().generation, identity)


def _latest(index: LocalIndex | None) -> Latest:
    if index is None:  # not an index in a folder
        return Latest(None, "")
    try:
        return Latest(load_evaluation(index), "")
    except IndexDamagedError as error:
        # The log names the file for whoever runs the server; the page names no path.
        _log.warning("%s", error)
        return Latest(None, f"{EVALUATION.file} in the index folder cannot be read. Delete it and measure again.")
