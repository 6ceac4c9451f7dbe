"""``searchengine search`` and ``recommend``: a query from the command line, and its results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchengine.cli.command import COUNT, ID, PATH, Decorator, choice, flag, json_flag, option, options, section, verb
from searchengine.cli.options import ENGINE, MILVUS, metric_option, open_engine, settings_options
from searchengine.cli.output import print_json, print_note, print_result, shown
from searchengine.errors import ImageError, QueryError
from searchengine.index.filters import FIELDS, Cursor, Filter, unknown_choices
from searchengine.index.metrics import metric_title, rank_alike
from searchengine.query import DEFAULT_RULE, DISLIKED, LIKED, RULES, Box, Example, Query, Sign
from searchengine.spelling import parse_id, split_box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from searchengine.engine import FeatureOf, Results, SearchEngine
    from searchengine.index.protocol import Index
    from searchengine.index.types import Hit
    from searchengine.learn.classifiers import Vote
    from searchengine.settings import Settings

_UNIT = 1e-3  # deviation of a query's length from 1 that needs no note

# -- options ----------------------------------------------------------------------------------------------------------


def _query_options(default_k: int) -> Decorator[Any]:
    return section(
        "Options",
        option("--text WORDS", "Describe in words what the images should show."),
        option("--box L,T,W,H", "Search by this part of the picture only, given in fractions: 0.1,0.2,0.5,0.5."),
        options("--like IMAGE", "A liked image, as an id or a file; for a part of it, 12@0.1,0.2,0.5,0.5. Repeatable."),
        options("--dislike IMAGE", "A disliked image, given in the same way. Repeatable."),
        option(
            "--rule",
            "How likes and dislikes change the query. rocchio (Rocchio 1971) moves it towards the mean of the liked "
            "images and away from the mean of the disliked ones; exemplar-svm (Malisiewicz et al. 2011) separates them "
            f"with a support vector machine (default: {DEFAULT_RULE}, the better one in our measurements, see "
            "docs/CLASSIFY.md).",
            choice(*RULES),
        ),
        option("-k K", f"Number of results (default: {default_k}).", COUNT, default=default_k),
        option("--cursor CURSOR", "Continue after earlier results, from the cursor in their --json output."),
        flag("--distinct", "Show only one image of each set of near-duplicates."),
        flag("--copies", "Show files with the same content separately, not as one result."),
        metric_option("the metric of the index"),
    )


# The options are named as in ``index.filters.FIELDS``.
_filter_options = section(
    "Filters",
    options("--label LABEL", "Only images with this label. Repeatable: any of the labels."),
    options(
        "--tag TAG", "Only images in which the network sees this; it can be wrong. See `searchengine tags`. Repeatable."
    ),
    options("--folder FOLDER", "Only images in or below this folder, as paths are shown. Repeatable."),
    options("--after DAY", "Only images taken on this day or later: 2024-05-17, 2024-05 or 2024."),
    options("--before DAY", "Only images taken on this day or earlier."),
    options("--format FORMAT", "Only images of this format, such as JPEG. Repeatable."),
    options("--camera CAMERA", "Only images taken with this camera. Repeatable."),
    options("--min-width PIXELS", "Only images of at least this width."),
    options("--max-width PIXELS", "Only images of at most this width."),
    options("--min-height PIXELS", "Only images of at least this height."),
    options("--max-height PIXELS", "Only images of at most this height."),
    options("--ids IDS", "Only these images: 3,4,5."),
)


def query_from(values: Mapping[str, Any]) -> Query:
    """Return the query that the values of the options describe.

    Raises:
        QueryError, UnknownNameError: a value is not valid.
        click.UsageError: the options contradict each other.
    """
    box = Box.parse(values["box"]) if values["box"] else None
    starts: list[Any] = [values[name] for name in ("image", "id_") if values.get(name) is not None]
    if values.get("query"):
        starts.append(_source(values["query"]))
    if values.get("vector"):
        if box is not None:
            raise click.UsageError("A vector has no parts. Leave out --box, or search with a picture.")
        starts.append(_vector(values["vector"]))
    if len(starts) > 1:
        raise click.UsageError("Give only one of IMAGE, --id and --vector.")
    if box is not None and not starts:
        raise click.UsageError("--box needs a picture to be a part of. Add an IMAGE or --id.")
    examples = [Example(source, box) for source in starts]
    signs: list[tuple[str, Sign]] = [("like", LIKED), ("dislike", DISLIKED)]
    for name, sign in signs:
        for text in values[name]:
            source, part = split_box(text)
            examples.append(Example(_source(source), part, sign))
    return Query(
        tuple(examples),
        text=values.get("text"),
        filter=Filter.from_fields({name: values[name] for name in FIELDS if values[name]}),
        metric=values["metric"],
        k=values["k"],
        cursor=None if values["cursor"] is None else Cursor.parse(values["cursor"]),
        distinct=values["distinct"],
        copies=values["copies"],
        rule=values["rule"],
    )


def _source(text: str) -> int | Path:
    image_id = parse_id(text)
    return Path(text) if image_id is None else image_id


def _vector(source: str) -> NDArray[np.float32]:
    from searchengine.exchange import read_vectors

    vectors = read_vectors(source)
    if vectors.shape[0] != 1:
        raise QueryError(f"{source} holds {vectors.shape[0]} vectors. Search with one at a time.")
    return vectors


# -- commands ---------------------------------------------------------------------------------------------------------

_SEARCH = """\
Examples:
  searchengine search holiday.jpg -k 5
  searchengine search --text "a dog on a beach"
  searchengine search --id 42 --json
  searchengine search holiday.jpg --box 0.1,0.2,0.5,0.5
  searchengine search --id 42 --metric manhattan --label dog --after 2024-01-01
  searchengine search --vector query.npy --vote
  echo 0.1 0.7 0.2 | searchengine search --vector -
"""


@verb("search", _SEARCH)
@click.argument("image", metavar="[IMAGE]", required=False, type=PATH)
@option("--id ID", "Search with the image of the index that has this id.", ID, name="id_")
@option(
    "--vector FILE",
    "Search with a feature from a .npy file, or from a text file with all numbers on one line; - reads standard input.",
)
@_query_options(10)
@_filter_options
@flag("--vote", "Predict a label: print the share of each label among the k nearest images, leaving out the query.")
@settings_options(*ENGINE, *MILVUS)
@json_flag
def search(settings: Settings, vote: bool, as_json: bool, **values: Any) -> None:
    """Find images that look like a given image or match words."""
    query = query_from(values)
    if not query.examples and query.text is None:
        raise click.UsageError("Say what to search for: an IMAGE, --id, --vector or --text.")
    _answer(settings, query, values["vector"], vote=vote, as_json=as_json)


_RECOMMEND = """\
Examples:
  searchengine recommend --like 12 --like 40 --dislike 7 -k 20
  searchengine recommend --query beach.jpg --like 12 --dislike 7
  searchengine recommend --text "a dog on a beach" --like 12
  searchengine recommend --like mine.jpg --rule rocchio --json
"""


@verb("recommend", _RECOMMEND)
@option("--query IMAGE", "The image with which the search began.")
@_query_options(20)
@_filter_options
@settings_options(*ENGINE)
@json_flag
def recommend(settings: Settings, as_json: bool, **values: Any) -> None:
    """Find images like those you like and unlike those you dislike.

    Give each image as an id of the index or as a file. For a file whose name is a number, write ./42. The images that
    you give are left out of the results.
    """
    _answer(settings, query_from(values), as_json=as_json)


# -- results ----------------------------------------------------------------------------------------------------------


def _answer(
    settings: Settings, query: Query, vector: str | None = None, *, vote: bool = False, as_json: bool = False
) -> None:
    with closing(open_engine(settings)) as engine:
        index = engine.index
        ready, files = _load_examples(query, engine)
        results = engine.search(ready, feature_of=_naming_files(files, engine))
        votes = _vote(engine, ready, results.start) if vote else []
        labels = {record.id: record.labels for record in index.known([hit.id for hit in results])}
        metric = query.metric or index.metric
        if metric != index.metric and rank_alike(metric, index.metric, normalized=index.normalized):
            print_note(f"These features have length 1, so {metric_title(index.metric)} gives the same order.")
        for note in unknown_choices(index.facets(), query.filter) if query.filter else ():
            print_note(note)
    for note in filter(None, (results.doubt, results.remark)):
        print_note(note)
    if as_json:
        print_json(_to_json(query, results, labels, votes if vote else None, vector))
        return
    print_result("rank  distance  score  id  path")
    for hit in results:
        notes = f"  [{shown(', '.join(labels[hit.id]))}]" if labels.get(hit.id) else ""
        if hit.stands_for > 1:
            notes += f"  and {hit.stands_for - 1} {'near-duplicates' if query.distinct else 'copies'}"
        print_result(f"{hit.rank:4d}  {hit.distance:8.4f}  {hit.score:5.3f}  {hit.id}  {shown(hit.path)}{notes}")
    for share in votes:
        print_result(f"{share.share:6.1%}  {shown(share.label)}")
    if vote and not votes:
        print_note("None of the nearest images has a label, so there is no vote.")


def _load_examples(query: Query, engine: SearchEngine) -> tuple[Query, dict[bytes, Path]]:
    """Replace files by their bytes, and scale a vector like the features of the index.

    Returns the new query, and the file that each of the bytes came from.
    """
    examples = []
    files: dict[bytes, Path] = {}
    for example in query.examples:
        if isinstance(example.source, Path):
            id_option = {LIKED: "--like", DISLIKED: "--dislike"}.get(example.sign, "--id")
            contents = read_picture(example.source, id_option=id_option)
            files.setdefault(contents, example.source)
            example = replace(example, source=contents)
        elif example.is_feature:
            example = replace(example, source=_scaled(example.source, engine.index))  # type: ignore[arg-type]
        examples.append(example)
    return replace(query, examples=tuple(examples)), files


def read_picture(file: Path, *, id_option: str) -> bytes:
    """Return the bytes of an image file.

    Raises:
        ImageError: it cannot be read. If its name is a number, the message suggests the option that takes an id.
    """
    from searchengine.images import read_image

    name = os.fspath(file)
    try:
        return read_image(file)
    except ImageError as error:
        if isinstance(error.__cause__, FileNotFoundError) and name.isascii() and name.isdigit():
            raise ImageError(
                f"There is no file {name}. For image {name} of the index, use {id_option} {name}"
            ) from error
        raise


def _scaled(vector: NDArray[np.float32], index: Index) -> NDArray[np.float32]:
    """Scale a (1, d) query to length 1 if the features of the index have that length; QueryError if d is wrong."""
    import numpy as np

    if vector.shape[1] != index.dimension:
        raise QueryError(
            f"The vector has {vector.shape[1]} numbers; the features of this index have {index.dimension}."
        )
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if index.normalized and np.isfinite(length) and length > 0 and abs(length - 1.0) > _UNIT:
        print_note(f"The features of this index have length 1, so the query was divided by its length, {length:.4g}.")
        return (vector / length).astype(np.float32)
    return vector


def _naming_files(files: Mapping[bytes, Path], engine: SearchEngine) -> FeatureOf:
    """Return ``engine.feature_of``, with the file of the example added to an ImageError."""

    def feature_of(example: Example) -> NDArray[np.float32]:
        try:
            return engine.feature_of(example)
        except ImageError as error:
            file = files.get(example.source) if isinstance(example.source, bytes) else None
            if file is None or str(file) in str(error):
                raise
            raise type(error)(f"{file}: {error}") from error

    return feature_of


def _to_json(
    query: Query, results: Results, labels: Mapping[int, tuple[str, ...]], votes: list[Vote] | None, vector: str | None
) -> dict[str, Any]:
    def names(examples: Iterable[Example]) -> list[int | str]:
        return [vector or str(example.source) if example.id is None else example.id for example in examples]

    start = query.start
    answer: dict[str, Any] = {"query": None if start is None else names([start])[0]}
    if start is not None and start.box is not None:
        answer["box"] = start.box.part
    if query.judged:
        answer |= {"liked": names(query.liked), "disliked": names(query.disliked), "rule": query.rule_used}
    if query.text is not None:
        answer |= {"text": query.text, "doubt": results.doubt}
    answer |= {
        "metric": results.metric,
        "ranked_by": results.ranked_by,
        "total": results.total,
        "remark": results.remark,
        "cursor": None if results.cursor is None else str(results.cursor),
        "hits": [{**hit.to_dict(), "labels": labels.get(hit.id, ())} for hit in results],
    }
    if votes is not None:
        answer["votes"] = [asdict(share) for share in votes]
    return answer


def _vote(engine: SearchEngine, query: Query, feature: NDArray[np.float32] | None) -> list[Vote]:
    """Return the vote of the k nearest images other than the query itself."""
    from searchengine.learn.classifiers import vote

    if feature is None or query.start is None:
        raise QueryError("--vote needs a picture or a vector to start from.")
    is_query = _is_query(engine, query.start)
    count = query.k
    while True:
        hits = engine.index.search(feature, count, query.metric, filter=query.filter)[0]
        same = [hit for hit in hits if is_query(hit)]
        missing = query.k - (len(hits) - len(same))
        if missing <= 0 or len(hits) < count:
            break
        count += missing
    if same and query.start.id is None:
        print_note(f"Left out of the vote as the query itself: {', '.join(shown(hit.path) for hit in same)}")
    voters = [hit.id for hit in hits if hit not in same][: query.k]
    return vote([record.labels for record in engine.index.known(voters)])


def _is_query(engine: SearchEngine, start: Example) -> Callable[[Hit], bool]:
    """Return whether a hit is the start of the search, by its id, its bytes or, for a vector, its numbers."""
    import numpy as np

    if start.id is not None:
        return lambda hit: hit.id == start.id
    if isinstance(start.source, bytes):
        return same_file(start.source)
    return lambda hit: np.allclose(engine.index.feature(hit.id), start.source, rtol=1e-5, atol=1e-7)  # type: ignore[arg-type]


def same_file(contents: bytes) -> Callable[[Hit], bool]:
    """Return a function that says whether a hit is an image file with exactly these bytes."""
    from searchengine.index.types import content_hash

    digest = content_hash(contents).hex()
    return lambda hit: hit.record.content_hash == digest
