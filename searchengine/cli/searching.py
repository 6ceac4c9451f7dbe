"""``searchengine search``: an image -> its neighbours, on the terminal."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from searchengine.cli.options import (
    add_images_dir,
    add_index_dir,
    add_json,
    add_running,
    print_json,
    print_result,
    whole_number,
)


def add_verbs(verbs: Any) -> None:
    """Add ``search``."""
    parser = verbs.add_parser(
        "search",
        help="find the images that look like a given one",
        description="Find the images of an index that look like a given one.",
        epilog="examples:\n  searchengine search holiday.jpg -k 5\n  searchengine search --id 42 --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=act)
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("image", metavar="IMAGE", nargs="?", type=Path, help="an image file")
    query.add_argument("--id", type=whole_number, help="an image of the index, by its id")
    parser.add_argument("-k", metavar="K", type=whole_number, default=10, help="how many (default: 10)")
    add_index_dir(parser)
    add_images_dir(parser)
    add_running(parser)
    add_json(parser)


def act(options: argparse.Namespace) -> int:
    """Run it."""
    from searchengine.engine import SearchEngine

    engine = SearchEngine.open(
        options.index_dir, images_dir=options.images_dir, precision=options.precision, runtime=options.runtime
    )
    if options.id is not None:
        hits = engine.search_id(options.id, options.k)
        query: str | int = options.id
    else:
        hits = engine.search(options.image, options.k)
        query = str(options.image)
    if options.json:
        print_json({"query": query, "hits": [asdict(hit) for hit in hits]})
        return 0
    print_result("rank  distance  score  id  path")
    for hit in hits:
        label = f"  [{hit.label}]" if hit.label else ""
        print_result(f"{hit.rank:4d}  {hit.distance:8.4f}  {hit.score:5.3f}  {hit.id}  {hit.path}{label}")
    return 0
