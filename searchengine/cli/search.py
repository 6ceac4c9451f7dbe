"""``searchengine search`` and ``recommend``: a query as the command line spells it, and its answer."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchengine.cli.options import (
    COUNT,
    ENGINE,
    ID,
    PATH,
    choice,
    filter_options,
    flag,
    json_flag,
    metric_option,
    open_engine,
    option,
    options,
    settings_options,
    verb,
)
from searchengine.cli.output import print_json, print_note, print_result, shown
from searchengine.errors import ImageError, QueryError
from searchengine.files import read_regular
from searchengine.index.filters import FIELDS, Cursor, Filter, unknown_choices
from searchengine.query import (
    DEFAULT_RULE,
    DISLIKED,
    LIKED,
    RULES,
    Box,
    Example,
    Query,
    Sign,
)
from searchengine.spelling import parse_id, split_box, with_box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from searchengine.engine import Results, SearchEngine
    from searchengine.index.local import LocalIndex
    from searchengine.index.types import Hit
    from searchengine.learn.nearest import Vote
    from searchengine.settings import Settings

_UNIT = 1e-3  # how far from 1 the length of a query may be without a note


# -- a query as it is spelt -------------------------------------------------------------------------------------------


def query_options(default_k: int) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """The options of a query, but for those that name what it starts from."""
    declared = [
        option("--text", metavar="WORDS", help="what the images are to show, in words"),
        option("--box", metavar="L,T,W,H", help="the part of the picture that counts, as fractions: 0.1,0.2,0.5,0.5"),
        options("--like", metavar="IMAGE", help="a liked image, an id or a file; 12@0.1,0.2,0.5,0.5 for a part of it"),
        options("--dislike", metavar="IMAGE", help="a disliked image, likewise"),
        option(
            "--rule",
            type=choice(*RULES),
            help="Rocchio (1971) moves the query towards the mean of the liked images and away from that of the "
            "disliked ones; the exemplar SVM (Malisiewicz et al. 2011) separates them by a support vector machine "
            f"(default: {DEFAULT_RULE}, the better one in our measurements: docs/CLASSIFY.md)",
        ),
        option("-k", metavar="K", type=COUNT, default=default_k, help=f"how many (default: {default_k})"),
        option("--cursor", metavar="CURSOR", help="continue after an answer, by the cursor that --json gave"),
        flag("--distinct", help="show one image only of those that are near-duplicates"),
        flag("--copies", help="show files of the same content one by one; else one stands for all"),
        metric_option("that of the index"),
        filter_options,
    ]

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        for each in reversed(declared):
            function = each(function)
        return function

    return decorate


def query_from(values: Mapping[str, Any]) -> Query:
    """The query that a command line spells, from the values of its options; QueryError, UnknownNameError."""
    box = Box.parse(values["box"]) if values["box"] else None
    starts: list[Any] = [values[name] for name in ("image", "id_") if values.get(name) is not None]
    if values.get("query"):
        starts.append(_source(values["query"]))
    if values.get("vector"):
        if box is not None:
            raise click.UsageError("A vector has no parts: leave --box out, or search by a picture.")
        starts.append(_vector(values["vector"]))
    if len(starts) > 1:
        raise click.UsageError("Name one query: an IMAGE, or --id, or --vector.")
    if box is not None and not starts:
        raise click.UsageError("--box is a part of what the search starts from: name that, too.")
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


def query_to(query: Query) -> list[str]:
    """The arguments of ``search`` that spell a query; QueryError where an example is neither an id nor a path."""
    arguments = ["-k", str(query.k)]
    given = {"metric": query.metric, "rule": query.rule, "text": query.text, "cursor": query.cursor}
    arguments += [f"--{name}={value}" for name, value in given.items() if value is not None]
    arguments += [f"--{name}" for name in ("distinct", "copies") if getattr(query, name)]
    for name, texts in query.filter.to_fields().items():
        arguments += [f"--{name.replace('_', '-')}={text}" for text in texts]
    for examples, name in ((query.liked, "like"), (query.disliked, "dislike")):
        arguments += [f"--{name}={with_box(_named(example), example.box)}" for example in examples]
    start = query.start
    if start is not None:
        arguments += [] if start.box is None else [f"--box={start.box}"]
        arguments += ["--", _named(start)] if start.id is None else [f"--id={start.id}"]
    return arguments


def _source(text: str) -> int | Path:
    image_id = parse_id(text)
    return Path(text) if image_id is None else image_id


def _vector(source: str) -> NDArray[np.float32]:
    from searchengine.exchange import read_vectors

    vectors = read_vectors(source)
    if vectors.shape[0] != 1:
        raise QueryError(f"{source} holds {vectors.shape[0]} vectors, and one can be searched by at a time.")
    return vectors


def _named(example: Example) -> str:
    """An id, or a path; a file whose name is a number is given as ./42."""
    if example.id is not None:
        return str(example.id)
    if not isinstance(example.source, Path):
        raise QueryError("Only ids and paths can be spelt on the command line.")
    name = os.fspath(example.source)
    return f".{os.sep}{name}" if parse_id(name) is not None else name


# -- what it names ----------------------------------------------------------------------------------------------------


def read_picture(file: Path, *, id_option: str = "") -> bytes:
    """The bytes of an image file. A pipe is refused, because nobody may ever write to it.

    Args:
        file: as the user named it.
        id_option: the option that takes an id, to suggest it where the name is a number.

    Raises:
        ImageError: the file cannot be read.
    """
    name = os.fspath(file)
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise ImageError(f"{name} is not a file. Name an image file.")
        return read_regular(file)
    except FileNotFoundError as error:
        if id_option and name.isascii() and name.isdigit():
            raise ImageError(f"There is no file {name}. For image {name} of the index: {id_option} {name}") from error
        raise ImageError(f"{name} cannot be read: {error.strerror}.") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise ImageError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """Within the block, an ImageError names the file."""
    try:
        yield
    except ImageError as error:
        if os.fspath(file) in str(error):
            raise
        raise type(error)(f"{file}: {error}") from error


def same_file(contents: bytes) -> Callable[[Hit], bool]:
    """Whether a hit is an image with just these bytes."""
    from searchengine.index.types import content_hash

    digest = content_hash(contents).hex()
    return lambda hit: hit.record.content_hash == digest


def _ready(query: Query, engine: SearchEngine) -> Query:
    """The query with the bytes of the files that it names, and with a vector as the index wants it."""
    examples = []
    for example in query.examples:
        if isinstance(example.source, Path):
            id_option = {LIKED: "--like", DISLIKED: "--dislike"}.get(example.sign, "--id")
            example = replace(example, source=read_picture(example.source, id_option=id_option))
        elif example.is_feature:
            example = replace(example, source=_fitted(example.source, engine.index))  # type: ignore[arg-type]
        examples.append(example)
    return replace(query, examples=tuple(examples))


def _fitted(vector: NDArray[np.float32], index: LocalIndex) -> NDArray[np.float32]:
    """A (1, d) query as the features of an index are: of length 1 where they are; QueryError if it does not fit."""
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


_SEARCH = """\
examples:
  searchengine search holiday.jpg -k 5
  searchengine search --text "a dog on a beach"
  searchengine search --id 42 --json
  searchengine search holiday.jpg --box 0.1,0.2,0.5,0.5
  searchengine search --id 42 --metric manhattan --label dog --after 2024-01-01
  searchengine search --vector query.npy --vote
  echo 0.1 0.7 0.2 | searchengine search --vector -
"""


@verb("search", "find the images that look like a given one", _SEARCH)
@click.argument("image", metavar="[IMAGE]", required=False, type=PATH)
@option("--id", "id_", metavar="ID", type=ID, help="the id of an image of the index")
@option(
    "--vector",
    metavar="FILE",
    help="a feature: a .npy file, or text with the numbers in a line; - reads standard input",
)
@query_options(10)
@flag(
    "--vote", help="let the labels of the k nearest images vote, the query itself left out: each label with its share"
)
@settings_options(*ENGINE)
@json_flag
def search(settings: Settings, vote: bool, as_json: bool, **values: Any) -> int:
    """Find the images of an index that look like a given one, or that show what words say."""
    query = query_from(values)
    if not query.examples and query.text is None:
        raise click.UsageError("Name one query: an IMAGE, or --id, or --vector, or --text.")
    return _answer(settings, query, values["vector"], vote=vote, as_json=as_json)


_RECOMMEND = """\
examples:
  searchengine recommend --like 12 --like 40 --dislike 7 -k 20
  searchengine recommend --query beach.jpg --like 12 --dislike 7
  searchengine recommend --text "a dog on a beach" --like 12
  searchengine recommend --like mine.jpg --rule rocchio --json
"""


@verb("recommend", "find images by several liked and disliked ones", _RECOMMEND)
@option("--query", metavar="IMAGE", help="the image with which the search began")
@query_options(20)
@settings_options(*ENGINE)
@json_flag
def recommend(settings: Settings, as_json: bool, **values: Any) -> int:
    """Find images that are like those you like and unlike those you dislike.

    Each is an id of the index or an image file; a file whose name is a number is given as ./42. Those that you name are
    left out of the results.
    """
    return _answer(settings, query_from(values), as_json=as_json)


# -- the answer -------------------------------------------------------------------------------------------------------


def _answer(
    settings: Settings, query: Query, vector: str | None = None, *, vote: bool = False, as_json: bool = False
) -> int:
    from searchengine.index.metrics import alike, metric_title

    with closing(open_engine(settings)) as engine:
        index = engine.index
        ready = _ready(query, engine)
        results = _search(engine, query, ready)
        votes = _vote(engine, ready, results.start) if vote else []
        labels = {record.id: record.labels for record in index.known([hit.id for hit in results])}
        if query.metric and index.metric in alike(query.metric, normalized=index.normalized):
            print_note(f"These features have length 1: {metric_title(index.metric)} gives the same order.")
        for sentence in unknown_choices(index.facets(), query.filter) if query.filter else ():
            print_note(sentence)
    if results.doubt:
        print_note(results.doubt)
    if as_json:
        print_json(_to_json(query, results, labels, votes if vote else None, vector))
        return 0
    print_result("rank  distance  score  id  path")
    for hit in results:
        notes = f"  [{shown(', '.join(labels[hit.id]))}]" if labels.get(hit.id) else ""
        if hit.stands_for > 1:
            notes += f"  and {hit.stands_for - 1} {'near-duplicates' if query.distinct else 'copies'}"
        print_result(f"{hit.rank:4d}  {hit.distance:8.4f}  {hit.score:5.3f}  {hit.id}  {shown(hit.path)}{notes}")
    for share in votes:
        print_result(f"{share.share:6.1%}  {shown(share.label)}")
    if vote and not votes:
        print_note("None of them has a label, so there is nothing to vote for.")
    return 0


def _search(engine: SearchEngine, query: Query, ready: Query) -> Results:
    """The answer; an ImageError names the file that cannot be used."""
    from searchengine.images import decode

    try:
        return engine.search(ready)
    except ImageError:
        for example, contents in zip(query.examples, ready.examples, strict=True):
            if isinstance(example.source, Path) and isinstance(contents.source, bytes):
                with naming(example.source):
                    decode(contents.source)
        raise


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
        "cursor": None if results.cursor is None else str(results.cursor),
        "hits": [{**hit.to_dict(), "labels": labels.get(hit.id, ())} for hit in results],
    }
    if votes is not None:
        answer["votes"] = [asdict(share) for share in votes]
    return answer


def _vote(engine: SearchEngine, query: Query, feature: NDArray[np.float32] | None) -> list[Vote]:
    """The vote of the k nearest images that are not the query itself."""
    from searchengine.learn.nearest import vote

    if feature is None or query.start is None:
        raise QueryError("A vote needs a picture or a vector to be near to.")
    matches = _matches(engine, query.start)
    count = query.k
    while True:
        hits = engine.index.search(feature, count, query.metric, filter=query.filter)[0]
        same = [hit for hit in hits if matches(hit)]
        missing = query.k - (len(hits) - len(same))
        if missing <= 0 or len(hits) < count:
            break
        count += missing
    if same and query.start.id is None:
        print_note(f"Without a vote, because it is the query itself: {', '.join(shown(hit.path) for hit in same)}")
    voters = [hit.id for hit in hits if hit not in same][: query.k]
    return vote([record.labels for record in engine.index.known(voters)])


def _matches(engine: SearchEngine, start: Example) -> Callable[[Hit], bool]:
    """Whether a hit is what the search starts from: by its id, its bytes or, for a vector, its numbers."""
    import numpy as np

    if start.id is not None:
        return lambda hit: hit.id == start.id
    if isinstance(start.source, bytes):
        return same_file(start.source)
    return lambda hit: np.allclose(engine.index.feature(hit.id), start.source, rtol=1e-5, atol=1e-7)  # type: ignore[arg-type]
