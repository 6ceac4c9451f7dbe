"""``searchengine search`` and ``recommend``: images, or what stands for them -> what looks like them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchengine.cli.options import (
    COUNT,
    ENGINE,
    EXAMPLE,
    ID,
    PATH,
    choice,
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
from searchengine.errors import ImageError
from searchengine.files import read_regular

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from searchengine.engine import SearchEngine
    from searchengine.index.types import Hit
    from searchengine.learn.nearest import Vote
    from searchengine.settings import Settings

RULES = ("exemplar-svm", "rocchio")  # of recommend, the default first
_UNIT = 1e-3  # how far from 1 the length of a query may be without a note


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


_SEARCH = """\
examples:
  searchengine search holiday.jpg -k 5
  searchengine search --id 42 --json
  searchengine search --id 42 --metric manhattan
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
@option("-k", metavar="K", type=COUNT, default=10, help="how many (default: 10)")
@flag(
    "--vote", help="let the labels of the k nearest images vote, the query itself left out: each label with its share"
)
@metric_option("that of the index")
@settings_options(*ENGINE)
@json_flag
def search(
    settings: Settings,
    image: Path | None,
    id_: int | None,
    vector: str | None,
    k: int,
    vote: bool,
    metric: str | None,
    as_json: bool,
) -> int:
    """Find the images of an index that look like a given one."""
    from searchengine.index.answers import copies_sentence, count_copies, search_by_id
    from searchengine.index.metrics import alike, metric_title

    if sum(query is not None for query in (image, id_, vector)) != 1:
        raise click.UsageError("Name one query: an IMAGE, or --id, or --vector.")
    with closing(open_engine(settings)) as engine:
        index = engine.index
        query = _query(engine, image, id_, vector)
        hits = index.search(query.feature, k, metric)[0] if id_ is None else search_by_id(index, id_, k, metric)
        votes = _vote(engine, query, k, metric) if vote else []
        labels = {record.id: record.labels for record in index.known([hit.id for hit in hits])}
        if metric and index.metric in alike(metric, normalized=index.normalized):
            print_note(f"These features have length 1: {metric_title(index.metric)} gives the same order.")
        metric = metric or index.metric
    if said := copies_sentence(hits):
        print_note(said)
    if as_json:
        answer: dict[str, Any] = {
            "query": id_ if id_ is not None else str(vector or image),
            "metric": metric,
            "copies": count_copies(hits),
            "hits": [{**hit.to_dict(), "labels": labels.get(hit.id, ())} for hit in hits],
        }
        if vote:
            answer["votes"] = [asdict(share) for share in votes]
        print_json(answer)
        return 0
    print_result("rank  distance  score  id  path")
    for hit in hits:
        shown_labels = f"  [{shown(', '.join(labels[hit.id]))}]" if labels.get(hit.id) else ""
        print_result(f"{hit.rank:4d}  {hit.distance:8.4f}  {hit.score:5.3f}  {hit.id}  {shown(hit.path)}{shown_labels}")
    for share in votes:
        print_result(f"{share.share:6.1%}  {shown(share.label)}")
    if vote and not votes:
        print_note("None of them has a label, so there is nothing to vote for.")
    return 0


@dataclass(frozen=True, slots=True)
class _Query:
    """A (1, d) float32 feature; ``matches`` says of a hit whether it is the query itself."""

    feature: NDArray[np.float32]
    matches: Callable[[Hit], bool]
    by_id: bool


def _query(engine: SearchEngine, image: Path | None, id_: int | None, vector: str | None) -> _Query:
    """The one that is given of the three; a hit matches by its id, its bytes or, for a vector, its numbers."""
    import numpy as np

    index = engine.index
    if vector is not None:
        feature = _read_vector(vector, index.dimension, unit=index.normalized)
        return _Query(
            feature, lambda hit: np.allclose(index.feature(hit.id), feature[0], rtol=1e-5, atol=1e-7), by_id=False
        )
    if id_ is not None:
        return _Query(index.feature(id_)[None], lambda hit: hit.id == id_, by_id=True)  # (d,) -> (1, d)
    assert image is not None
    with naming(image):
        contents = read_picture(image, id_option="--id")
        return _Query(engine.embed(contents), same_file(contents), by_id=False)


def _vote(engine: SearchEngine, query: _Query, k: int, metric: str | None) -> list[Vote]:
    """The vote of the k nearest images that are not the query itself."""
    from searchengine.learn.nearest import vote

    count = k
    while True:
        hits = engine.index.search(query.feature, count, metric)[0]
        matches = [hit for hit in hits if query.matches(hit)]
        missing = k - (len(hits) - len(matches))
        if missing <= 0 or len(hits) < count:
            break
        count += missing
    if matches and not query.by_id:
        print_note(f"Without a vote, because it is the query itself: {', '.join(shown(hit.path) for hit in matches)}")
    voters = [hit.id for hit in hits if hit not in matches][:k]
    return vote([record.labels for record in engine.index.known(voters)])


def _read_vector(source: str, dimension: int, *, unit: bool) -> Any:
    """A (1, d) float32 query, scaled to length 1 if ``unit``; QueryError if it does not fit the index."""
    import numpy as np

    from searchengine.errors import QueryError
    from searchengine.exchange import read_vectors

    vectors = read_vectors(source)
    if vectors.shape[0] != 1:
        raise QueryError(f"{source} holds {vectors.shape[0]} vectors, and one can be searched by at a time.")
    if vectors.shape[1] != dimension:
        raise QueryError(f"The vector has {vectors.shape[1]} numbers; the features of this index have {dimension}.")
    length = float(np.linalg.norm(vectors.astype(np.float64)))
    if unit and np.isfinite(length) and length > 0 and abs(length - 1.0) > _UNIT:
        print_note(f"The features of this index have length 1, so the query was divided by its length, {length:.4g}.")
        vectors = (vectors / length).astype(np.float32)
    return vectors


_RECOMMEND = """\
examples:
  searchengine recommend --like 12 --like 40 --dislike 7 -k 20
  searchengine recommend --query beach.jpg --like 12 --dislike 7
  searchengine recommend --like mine.jpg --rule rocchio --json
"""


@verb("recommend", "find images by several liked and disliked ones", _RECOMMEND)
@options("--like", metavar="IMAGE", type=EXAMPLE, help="a liked image; may be repeated")
@options("--dislike", metavar="IMAGE", type=EXAMPLE, help="a disliked image; may be repeated")
@option("--query", metavar="IMAGE", type=EXAMPLE, help="the image with which the search began")
@option("-k", metavar="K", type=COUNT, default=20, help="how many (default: 20)")
@option(
    "--rule",
    type=choice(*RULES),
    default=RULES[0],
    help="Rocchio (1971) moves the query towards the mean of the liked images and away from that of the disliked "
    "ones; the exemplar SVM (Malisiewicz et al. 2011) separates them by a support vector machine "
    f"(default: {RULES[0]}, the better one in our measurements: docs/CLASSIFY.md)",
)
@settings_options(*ENGINE)
@json_flag
def recommend(
    settings: Settings,
    like: tuple[int | Path, ...],
    dislike: tuple[int | Path, ...],
    query: int | Path | None,
    k: int,
    rule: str,
    as_json: bool,
) -> int:
    """Find images that are like those you like and unlike those you dislike.

    Each is an id of the index or an image file; a file whose name is a number is given as ./42. Those that you name are
    left out of the results.
    """
    from searchengine.images import decode

    with closing(open_engine(settings)) as engine:
        examples = [*like, *dislike, *([] if query is None else [query])]
        images = {example: read_picture(example) if isinstance(example, Path) else example for example in examples}
        try:
            hits = engine.recommend(
                [images[example] for example in like],
                [images[example] for example in dislike],
                k,
                query=None if query is None else images[query],
                rule=rule,
            )
        except ImageError:
            for file, contents in images.items():  # find out which of them it was
                if isinstance(file, Path) and isinstance(contents, bytes):
                    with naming(file):
                        decode(contents)
            raise
    if as_json:
        names = {example: str(example) if isinstance(example, Path) else example for example in examples}
        answer = {
            "liked": [names[example] for example in like],
            "disliked": [names[example] for example in dislike],
            "query": None if query is None else names[query],
            "rule": rule,
            "hits": [hit.to_dict() for hit in hits],
        }
        print_json(answer)
        return 0
    print_result("rank  score  id  path")
    for hit in hits:
        label = f"  [{shown(hit.label)}]" if hit.label else ""
        print_result(f"{hit.rank:4d}  {hit.score:5.3f}  {hit.id}  {shown(hit.path)}{label}")
    return 0
