"""``searchengine recommend``: liked and disliked images -> what else is like it, on the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.cli.options import (
    add_images_dir,
    add_index_dir,
    add_json,
    add_running,
    print_json,
    print_result,
    whole_number,
)
from searchengine.cli.output import shown
from searchengine.cli.parsing import path
from searchengine.cli.pictures import named, read_picture
from searchengine.errors import ImageError

if TYPE_CHECKING:
    from searchengine.engine import SearchEngine
    from searchengine.index.types import Hit

_DESCRIPTION = """\
Find images that are like those you like and unlike those you dislike. Each is an id of the index or an image file; a
file whose name is a number is given as ./42. Those that you name are left out of the results.
"""
_EPILOG = """\
examples:
  searchengine recommend --like 12 --like 40 --dislike 7 -k 20
  searchengine recommend --query beach.jpg --like 12 --dislike 7
  searchengine recommend --like mine.jpg --rule rocchio --json
"""
_RULES = ("exemplar-svm", "rocchio")  # the default first; spelt out, so that --help need not load NumPy


def add_verbs(verbs: Any) -> None:
    """Add ``recommend``."""
    parser = verbs.add_parser(
        "recommend",
        help="find images by several liked and disliked ones",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=act)
    parser.add_argument(
        "--like", metavar="IMAGE", type=example, action="append", default=[], help="a liked one; may be repeated"
    )
    parser.add_argument(
        "--dislike", metavar="IMAGE", type=example, action="append", default=[], help="a disliked one; may be repeated"
    )
    parser.add_argument("--query", metavar="IMAGE", type=example, help="the one with which the search began")
    parser.add_argument("-k", metavar="K", type=whole_number, default=20, help="how many (default: 20)")
    parser.add_argument(
        "--rule",
        choices=_RULES,
        default=_RULES[0],
        help="Rocchio (1971) moves the query towards the mean of the liked ones and away from that of the disliked "
        "ones; the exemplar SVM (Malisiewicz et al. 2011) parts them by a support vector machine "
        f"(default: {_RULES[0]}, the better one in our measurements: docs/CLASSIFY.md)",
    )
    add_index_dir(parser)
    add_images_dir(parser)
    add_running(parser)
    add_json(parser)


def example(given: str) -> int | Path:
    """An argparse type: an id, or an image file."""
    return int(given) if given.isascii() and given.isdigit() else path(given)


def act(options: argparse.Namespace) -> int:
    """Run it."""
    from searchengine.engine import SearchEngine

    engine = SearchEngine.open(
        options.index_dir, images_dir=options.images_dir, precision=options.precision, runtime=options.runtime
    )
    try:
        hits = _recommend(engine, options)
    finally:
        engine.close()
    if options.json:
        names = {"liked": options.like, "disliked": options.dislike}
        told: dict[str, Any] = {key: [_named(one) for one in given] for key, given in names.items()}
        told["query"] = None if options.query is None else _named(options.query)
        print_json({**told, "rule": options.rule, "hits": [hit.to_dict() for hit in hits]})
        return 0
    print_result("rank  score  id  path")
    for hit in hits:
        label = f"  [{shown(hit.label)}]" if hit.label else ""
        print_result(f"{hit.rank:4d}  {hit.score:5.3f}  {hit.id}  {shown(hit.path)}{label}")
    return 0


def _recommend(engine: SearchEngine, options: argparse.Namespace) -> list[Hit]:
    from searchengine.images import decode

    named_ones = [*options.like, *options.dislike, *([] if options.query is None else [options.query])]
    read = {one: read_picture(one) for one in named_ones if isinstance(one, Path)}
    query = None if options.query is None else read.get(options.query, options.query)
    like, dislike = ([read.get(one, one) for one in given] for given in (options.like, options.dislike))
    try:
        return engine.recommend(like, dislike, options.k, query=query, rule=options.rule)
    except ImageError:
        for file, data in read.items():  # which of them was it?
            with named(file):
                decode(data)
        raise


def _named(one: int | Path) -> int | str:
    return one if isinstance(one, int) else str(one)
