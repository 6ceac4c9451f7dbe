"""``searchengine map`` and ``cluster``: a collection seen as a whole."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from searchengine.cli.options import (
    add_images_dir,
    add_index_dir,
    add_json,
    print_json,
    print_note,
    print_result,
    whole_number,
)

_MAP = """\
Give every image of an index a place in the plane, so that what looks alike lies close together, by t-SNE. The map is
stored in the index folder and shown by the page /map. Where there is a map already, images that are new or changed are
placed on it, and the others stay where they are; other settings, another extractor or metric, or --anew make the whole
map again. The same settings give the same map. It rests on Euclidean distances (on the cosine where the index ranks by
that).
"""
_CLUSTER = """\
Group the images of an index: clusters of what looks alike, by k-means, and near-duplicates. The groups are stored in
the index folder and shown by the page /groups. Near-duplicates are images that are connected by distances of at most
the threshold, which is a share of the length that a feature typically has. For features of length 1 (--normalize l2)
that is the Euclidean distance itself, and a threshold of T means a cosine of at least 1 - T*T/2: 0.2 means 0.98.
Distances are Euclidean (between directions where the index ranks by cosine), whatever --metric the index has.
"""


def add_verbs(verbs: Any) -> None:
    """Add ``map`` and ``cluster``."""
    map_ = verbs.add_parser(
        "map",
        help="make the map that the page /map shows",
        description=_MAP,
        epilog="example:\n  searchengine map --index-dir coco --png coco-map.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    map_.set_defaults(act=act_map)
    add_index_dir(map_)
    add_images_dir(map_)
    map_.add_argument(
        "--perplexity",
        type=float,
        metavar="P",
        help="about how many neighbours an image should keep (default: as before, at first 30)",
    )
    map_.add_argument(
        "--iterations", type=whole_number, metavar="N", help="of t-SNE (default: as before, at first 750)"
    )
    map_.add_argument("--seed", type=int, metavar="S", help="of what is random (default: as before, at first 0)")
    map_.add_argument("--anew", action="store_true", help="make the whole map again")
    map_.add_argument("--png", type=Path, metavar="FILE", help="draw the map with the pictures themselves")
    add_json(map_)

    cluster = verbs.add_parser(
        "cluster",
        help="group what looks alike, and find near-duplicates",
        description=_CLUSTER,
        epilog="example:\n  searchengine cluster --index-dir coco --out coco-groups",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cluster.set_defaults(act=act_cluster)
    add_index_dir(cluster)
    add_images_dir(cluster)
    cluster.add_argument(
        "-k", type=whole_number, metavar="K", help="how many clusters (default: chosen by the silhouette of a sample)"
    )
    cluster.add_argument(
        "--threshold", type=float, metavar="T", default=0.2, help="of near-duplicates, see above (default: 0.2)"
    )
    cluster.add_argument("--seed", type=int, metavar="S", default=0, help="of what is random (default: 0)")
    cluster.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="draw a contact sheet of each group there; those of an earlier run are deleted",
    )
    add_json(cluster)


def act_map(options: argparse.Namespace) -> int:
    """Make the map, and the picture of it."""
    from searchengine.analyse.mapping import MapOptions, make_map
    from searchengine.analyse.mapping.picture import write_png
    from searchengine.engine import open_index
    from searchengine.progress import Bar

    index = open_index(options.index_dir, images_dir=options.images_dir)
    try:
        with Bar() as bar:
            asked = MapOptions(options.perplexity, options.iterations, options.seed, options.anew)
            made = make_map(index, asked, bar)
            drawn = None if options.png is None else write_png(index, options.png.expanduser(), bar)
    finally:
        index.close()
    if options.json:
        print_json({**asdict(made), "png": None if drawn is None else asdict(drawn)})
        return 0
    what = "made as a whole" if made.whole else f"{made.placed} placed on the map there was"
    what = "nothing new, so the map is as it was" if made.kept else what
    print_result(f"{made.file}: {made.images} images, {what}")
    if drawn is not None:
        print_result(f"{drawn.file}: {drawn.width} x {drawn.height} pixels, each picture within {drawn.side}")
    if options.perplexity is not None and made.perplexity < options.perplexity:
        print_note(
            f"A perplexity of {options.perplexity:g} needs at least {3 * options.perplexity + 1:.0f} images. "
            f"This map of {made.of_those_fitted} was made with {made.perplexity:.3g}."
        )
    if made.remark:
        print_note(made.remark)
    if made.of_those_fitted < made.images / 2:
        print_note(
            "Most of the images came after the map was made. Make it as a whole: "
            f"searchengine map --anew --index-dir {options.index_dir}"
        )
    return 0


def act_cluster(options: argparse.Namespace) -> int:
    """Make the groups, and their sheets."""
    from searchengine.analyse.mapping import GroupOptions, make_groups
    from searchengine.engine import open_index
    from searchengine.progress import Bar

    index = open_index(options.index_dir, images_dir=options.images_dir)
    try:
        with Bar() as bar:
            out = None if options.out is None else options.out.expanduser()
            made = make_groups(index, GroupOptions(options.k, options.threshold, options.seed, out), bar)
    finally:
        index.close()
    if options.json:
        print_json(asdict(made))
        return 0
    silhouette = "" if made.silhouette is None else f" (silhouette {made.silhouette:.2f})"
    print_result(
        f"{made.file}: {made.images} images in {made.clusters} clusters{silhouette}; {made.duplicates} groups of "
        f"near-duplicates with {made.in_duplicates} images, within {made.limit:.4g}"
    )
    if options.out is not None:
        print_result(f"{options.out}: {made.sheets} contact sheets")
    if made.remark:
        print_note(made.remark)
    return 0
