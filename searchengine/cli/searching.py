"""``searchengine search``: an image, or what stands for one -> its neighbours, on the terminal."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.cli.options import (
    add_images_dir,
    add_index_dir,
    add_json,
    add_metric,
    add_running,
    print_json,
    print_note,
    print_result,
    whole_number,
)
from searchengine.cli.output import shown
from searchengine.cli.pictures import named, read_picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from searchengine.engine import SearchEngine
    from searchengine.index.types import Hit
    from searchengine.voting import Vote

_EPILOG = """\
examples:
  searchengine search holiday.jpg -k 5
  searchengine search --id 42 --json
  searchengine search --id 42 --metric manhattan
  searchengine search --vector query.npy --vote
  echo 0.1 0.7 0.2 | searchengine search --vector -
"""
_UNIT = 1e-3


def add_verbs(verbs: Any) -> None:
    """Add ``search``."""
    parser = verbs.add_parser(
        "search",
        help="find the images that look like a given one",
        description="Find the images of an index that look like a given one.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=act)
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("image", metavar="IMAGE", nargs="?", type=Path, help="an image file")
    query.add_argument("--id", type=whole_number, help="an image of the index, by its id")
    query.add_argument(
        "--vector",
        metavar="FILE",
        help="a feature itself: a .npy file, or text with the numbers in a line; - reads standard input",
    )
    parser.add_argument("-k", metavar="K", type=whole_number, default=10, help="how many (default: 10)")
    parser.add_argument(
        "--vote",
        action="store_true",
        help="let the labels of the k nearest vote, without the query itself: each label with its share",
    )
    add_metric(parser, "that of the index")
    add_index_dir(parser)
    add_images_dir(parser)
    add_running(parser)
    add_json(parser)


def act(options: argparse.Namespace) -> int:
    """Run it."""
    from searchengine.engine import SearchEngine
    from searchengine.index.metrics import alike, metric_title

    engine = SearchEngine.open(
        options.index_dir, images_dir=options.images_dir, precision=options.precision, runtime=options.runtime
    )
    query, is_query = _query(engine, options)
    hits = engine.index.search(query, options.k, options.metric)[0]
    votes = _vote(engine, query, is_query, options) if options.vote else []
    metric = options.metric or engine.index.metric
    if options.metric and engine.index.metric in alike(options.metric, normalized=engine.index.normalized):
        print_note(f"These features have length 1: {metric_title(engine.index.metric)} gives the same order.")
    labels = {record.id: record.labels for record in engine.index.known([hit.id for hit in hits])}
    if options.json:
        asked = options.id if options.id is not None else str(options.vector or options.image)
        found = [{**hit.to_dict(), "labels": labels.get(hit.id, ())} for hit in hits]
        told: dict[str, Any] = {"query": asked, "metric": metric, "hits": found}
        if options.vote:
            told["votes"] = [asdict(one) for one in votes]
        print_json(told)
        return 0
    print_result("rank  distance  score  id  path")
    for hit in hits:
        carried = f"  [{shown(', '.join(labels[hit.id]))}]" if labels.get(hit.id) else ""
        print_result(f"{hit.rank:4d}  {hit.distance:8.4f}  {hit.score:5.3f}  {hit.id}  {shown(hit.path)}{carried}")
    for one in votes:
        print_result(f"{one.share:6.1%}  {shown(one.label)}")
    if options.vote and not votes:
        print_note("None of them has a label, so there is nothing to vote for.")
    return 0


def _query(engine: SearchEngine, options: argparse.Namespace) -> tuple[NDArray[np.float32], Callable[[Hit], bool]]:
    """The (1, d) query, and whether a hit is the query itself: of its id, its bytes or, of a vector, its numbers."""
    import numpy as np

    index = engine.index
    if options.vector is not None:
        vector = _vector(options.vector, index.dimension, unit=index.normalized)
        return vector, lambda hit: np.allclose(index.feature(hit.id), vector[0], rtol=1e-5, atol=1e-7)
    if options.id is not None:
        return index.feature(options.id)[None], lambda hit: hit.id == options.id  # (d,) -> (1, d)
    with named(options.image):
        data = read_picture(options.image, by_id="--id")
        digest = blake2b(data, digest_size=16).hexdigest()
        return engine.embed(data), lambda hit: hit.record is not None and hit.record.content_hash == digest


def _vector(source: str, dimension: int, *, unit: bool) -> Any:
    """One (1, d) float32 query, of length 1 where the features of the index are; QueryError."""
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


def _vote(
    engine: SearchEngine, query: NDArray[np.float32], is_query: Callable[[Hit], bool], options: argparse.Namespace
) -> list[Vote]:
    """The vote of the k nearest images that are not the query itself."""
    from searchengine.voting import vote

    wanted = options.k
    while True:
        hits = engine.index.search(query, wanted, options.metric)[0]
        itself = [hit for hit in hits if is_query(hit)]
        missing = options.k - (len(hits) - len(itself))
        if missing <= 0 or len(hits) < wanted:
            break
        wanted += missing
    if itself and options.id is None:
        print_note(f"Without a vote, because it is the query itself: {', '.join(shown(hit.path) for hit in itself)}")
    voters = [hit.id for hit in hits if hit not in itself][: options.k]
    return vote([record.labels for record in engine.index.known(voters)])
