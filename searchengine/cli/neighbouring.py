"""``searchengine neighbours``: the nearest images of every image of a set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from searchengine.cli.options import (
    add_images_dir,
    add_index_dir,
    add_json,
    add_metric,
    print_json,
    print_result,
    whole_number,
)

_DESCRIPTION = """\
Find the k nearest others of every image of an index, exactly, and write them as a table: DIR/neighbours.csv with the
columns id, path, label, rank, neighbour, neighbour_path, neighbour_label, distance, score. With --pictures also as a
contact sheet for each image, DIR/pictures/ID.jpg. A run that was stopped goes on with the same command: sheets that
are there are not drawn again, unless they lack a picture that is there now. Sheets of images that the index holds no
more are deleted.
"""


def add_verbs(verbs: Any) -> None:
    """Add ``neighbours``."""
    parser = verbs.add_parser(
        "neighbours",
        help="find the nearest images of every image",
        description=_DESCRIPTION,
        epilog="example:\n  searchengine neighbours --index-dir coco -k 10 --out coco-neighbours --pictures",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=act)
    add_index_dir(parser)
    add_images_dir(parser)
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder to write to")
    parser.add_argument("-k", metavar="K", type=whole_number, default=10, help="how many (default: 10)")
    add_metric(parser, "that of the index")
    parser.add_argument(
        "--format", choices=("csv", "parquet"), default="csv", help="of the table (default: csv; parquet needs PyArrow)"
    )
    parser.add_argument("--pictures", action="store_true", help="draw a contact sheet for each image")
    add_json(parser)


def act(options: argparse.Namespace) -> int:
    """Run it."""
    from searchengine.analyse.neighbours import NeighboursOptions, write_neighbours
    from searchengine.engine import open_index
    from searchengine.progress import Bar

    index = open_index(options.index_dir, images_dir=options.images_dir)
    try:
        with Bar() as bar:
            done = write_neighbours(
                index,
                options.out.expanduser(),
                NeighboursOptions(options.k, options.metric, options.format, options.pictures),
                bar,
            )
    finally:
        index.close()
    if options.json:
        print_json(done.to_dict())
        return 0
    drawn = f"; {done.pictures} sheets drawn" if options.pictures else ""
    drawn += f", {done.removed} of removed images deleted" if done.removed else ""
    print_result(f"{done.table}: {done.neighbours} neighbours of {done.images} images by {done.metric}{drawn}")
    return 0
