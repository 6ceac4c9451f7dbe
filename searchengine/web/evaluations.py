"""The evaluation that is kept with an index, as a page: how good its answers are by its own labels."""

from __future__ import annotations

from collections.abc import Iterator

from flask import render_template

from searchengine.analyse.evaluation import Evaluation, KeptEvaluation, metrics
from searchengine.analyse.evaluation.charts import curves
from searchengine.analyse.evaluation.report import shown
from searchengine.analyse.evaluation.results import Picture
from searchengine.web.cards import Card, card_of
from searchengine.web.indexes import IndexBlueprint, this_index

evaluations = IndexBlueprint("evaluations", __name__)


@evaluations.get("/evaluation")
def evaluation() -> str:
    """The evaluation, or how to make one."""
    latest = this_index().engine.evaluation()
    if latest.kept is None:
        return render_template("evaluation.html", one=None, problem=latest.problem)
    evaluation = latest.kept.evaluation
    return render_template(
        "evaluation.html",
        one=shown(evaluation),
        made=latest.kept.made[:10],
        stale=latest.kept.stale,
        problem="",
        curves=curves([(evaluation.name, evaluation.curve)]),
        main=metrics.MAIN,
        cards=_cards(evaluation, latest.kept),
    )


def _cards(evaluation: Evaluation, kept: KeptEvaluation) -> dict[str, Card]:
    """The images of the report that the index still holds, by path."""
    ids = {picture.path: kept.ids.get(picture.path) for picture in _pictures(evaluation)}
    known = this_index().engine.index.known([id_ for id_ in ids.values() if id_ is not None])
    records = {record.id: record for record in known}
    return {path: card_of(records[id_]) for path, id_ in ids.items() if id_ in records}


def _pictures(evaluation: Evaluation) -> Iterator[Picture]:
    examples = [hard.example for hard in evaluation.hardest]
    examples += [example for pair in evaluation.confused for example in pair.examples]
    for example in examples:
        yield example.query
        for place in example.places:
            yield place.picture
