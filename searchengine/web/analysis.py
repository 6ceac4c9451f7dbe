"""The pages of the map, the groups and the evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from flask import Response, jsonify, render_template, request

from searchengine.analyse.evaluation import Evaluation, KeptEvaluation, metrics
from searchengine.analyse.evaluation.report import shown
from searchengine.analyse.evaluation.results import Picture
from searchengine.errors import UnknownImageError, with_index_dir
from searchengine.index.filters import MAX_IDS
from searchengine.index.types import ImageRecord
from searchengine.query import Query
from searchengine.spelling import parse_id
from searchengine.web.cards import Card, card_of
from searchengine.web.overview import Group
from searchengine.web.pages import first_likes
from searchengine.web.requests import IndexBlueprint, RequestError, this_engine, this_site
from searchengine.web.security import REVALIDATE, is_local_request

_PREVIEW_IMAGES = 5  # of each group, on the page of all groups
_GROUPS_PER_PAGE = 60
_PATHS_PER_READ = 500

analysis = IndexBlueprint("analysis", __name__)


@analysis.app_template_global()
def command_line(command: str) -> str:
    """Return a command for this index; only a browser on this machine is shown the path of the index."""
    address = this_engine().index.address
    if not is_local_request(request, this_site().settings):
        return f"{command} --index-dir DIR"
    return with_index_dir(command, address.absolute() if isinstance(address, Path) else address)


@analysis.get("/map")
def map_() -> str:
    """Show the frame of the map; a script draws the map."""
    engine = this_engine()
    return render_template("map.html", overview=engine.overview.get(), status=engine.index.status())


@analysis.get("/map/points")
def points() -> Response:
    """Return the positions and colours of all images; see ``overview.pack``."""
    overview = this_engine().overview.get()
    if overview.points is None:
        raise UnknownImageError(f"There is no map of this collection yet. Make one: {command_line('searchengine map')}")
    response = Response(overview.points, mimetype="application/octet-stream")
    response.add_etag(weak=True)  # the same for every compression
    response.headers["Cache-Control"] = REVALIDATE
    response.make_conditional(request)
    return response


@analysis.post("/map/paths")
def paths() -> Response:
    """Return the paths of the posted ids, e.g. "7,12,40", as a JSON list, because a path may hold any character."""
    parts = request.get_data(as_text=True).split(",", MAX_IDS)
    if len(parts) > MAX_IDS:
        raise RequestError(f"At most {MAX_IDS} paths can be requested at a time.")
    ids = [id_ for id_ in map(parse_id, parts) if id_ is not None]
    # In batches, because reading the catalog blocks other requests.
    batches = (_known(ids[at : at + _PATHS_PER_READ]) for at in range(0, len(ids), _PATHS_PER_READ))
    return jsonify([record.path for batch in batches for record in batch.values()])


@analysis.get("/groups")
def groups() -> str:
    """Show all groups, or one of them."""
    overview = this_engine().overview.get()
    for kind, candidates in (("cluster", overview.clusters), ("duplicates", overview.duplicates)):
        if kind in request.args:
            return _group_page(kind, candidates)
    start = _start()
    end = start + _GROUPS_PER_PAGE
    return render_template(
        "groups.html",
        overview=overview,
        clusters=[] if start else _previews(overview.clusters),
        duplicates=_previews(overview.duplicates[start:end]),
        more=end if end < len(overview.duplicates) else None,
    )


@analysis.get("/evaluation")
def evaluation() -> str:
    """Show the evaluation, or how to make one."""
    latest = this_engine().evaluation.get()
    if latest.kept is None:
        return render_template("evaluation.html", problem=latest.problem)
    evaluation = latest.kept.evaluation
    return render_template(
        "evaluation.html",
        evaluation=shown(evaluation),
        made=latest.kept.made[:10],
        stale=latest.kept.stale,
        main=metrics.MAIN,
        cards=_cards_by_path(evaluation, latest.kept),
    )


def _group_page(kind: str, candidates: Sequence[Group]) -> str:
    number = parse_id(request.args[kind])
    group = next((group for group in candidates if group.number == number), None)
    if group is None:
        raise RequestError(
            "This group does not exist. The groups may have been computed again; look at all of them.", 404
        )
    start = _start()
    end = start + this_site().settings.sample
    cards = [card_of(record) for record in _known(group.ids[start:end]).values()]
    return render_template(
        "groups.html",
        kind=kind,
        group=group,
        cards=cards,
        likes=first_likes(Query(k=this_site().settings.default_k)),
        more=end if end < group.size else None,
    )


def _start() -> int:
    """Return how many groups, or images of one group, earlier pages show."""
    return parse_id(request.args.get("start")) or 0


def _previews(groups: Sequence[Group]) -> list[tuple[Group, list[Card]]]:
    """Return the groups, each with the cards of a few of its images."""
    ids = {group: group.ids[:_PREVIEW_IMAGES] for group in groups}
    records = _known([id_ for group in groups for id_ in ids[group]])
    return [(group, [card_of(records[id_]) for id_ in ids[group] if id_ in records]) for group in groups]


def _cards_by_path(evaluation: Evaluation, kept: KeptEvaluation) -> dict[str, Card]:
    """Return the cards of the images in the report that the index still holds."""
    ids = {picture.path: kept.ids.get(picture.path) for picture in _pictures(evaluation)}
    records = _known([id_ for id_ in ids.values() if id_ is not None])
    return {path: card_of(records[id_]) for path, id_ in ids.items() if id_ in records}


def _pictures(evaluation: Evaluation) -> Iterator[Picture]:
    examples = [hard.example for hard in evaluation.hardest]
    examples += [example for pair in evaluation.confused for example in pair.examples]
    for example in examples:
        yield example.query
        for place in example.places:
            yield place.picture


def _known(ids: Sequence[int]) -> dict[int, ImageRecord]:
    """Return the images that still exist, by id."""
    return {record.id: record for record in this_engine().index.known(ids)}
