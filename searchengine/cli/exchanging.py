"""``searchengine import`` and ``export``: ready-made features in, features out."""

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
    print_note,
    print_result,
)

_IMPORT = """\
Make an index of features that another program has made. No model is needed: search by --id or --vector.

  .npy      an array (rows, numbers in a feature)
  .npz      an array of features and, with a value a row each, ids, labels and paths
  .parquet  a column of lists, or a column of numbers each   (needs PyArrow)
  .csv      a column of numbers each, or one with the vector as text: [1.0 2.0] or array('d', [1.0, 2.0])

Columns are known by usual names (features, deep_features, embedding, ...; id; label, class, ...; path, filename, ...);
for others, name them. Everything is imported or, if any row is wrong, nothing.
"""

_IMPORT_EPILOG = """\
examples:
  searchengine import cifar10.npz --index-dir cifar10
  searchengine import image_train_data.csv --features deep_features --index-dir cifar10
  searchengine import vectors.npy --labels labels.txt --paths names.txt --images ~/photos
"""


def add_verbs(verbs: Any) -> None:
    """Add ``import`` and ``export``."""
    taking = verbs.add_parser(
        "import",
        help="make an index of ready-made features",
        description=_IMPORT,
        epilog=_IMPORT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    taking.set_defaults(act=act_import)
    taking.add_argument("file", metavar="FEATURES", type=Path, help="a .npy, .npz, .parquet, .csv or .tsv file")
    add_index_dir(taking)
    which = taking.add_argument_group("what is what in the file")
    which.add_argument("--features", metavar="NAME", help="the array, or the column of vectors")
    for role, what in (
        ("ids", "whole numbers from 0 up, each but once (default: the rows are numbered)"),
        ("labels", "a label each, or a list of labels"),
        ("paths", "the image files, relative to --images"),
    ):
        which.add_argument(
            f"--{role}",
            metavar="NAME|FILE|none",
            help=f"{what}: a column, a file (.npy, or text with one a line), or none to leave them out",
        )
    taking.add_argument("--images", metavar="DIR", type=Path, help="the folder of the pictures, if they are at hand")
    taking.add_argument("--name", metavar="TEXT", help="what the features are, for people (default: the file's name)")
    taking.add_argument(
        "--normalize",
        choices=("none", "l2"),
        default="none",
        help="keep every number as it is (default), or bring each feature to length 1",
    )
    add_metric(taking, "that of the index which the file was exported from, else euclidean")
    taking.add_argument("--append", action="store_true", help="add to an index that was imported before")
    add_json(taking)

    giving = verbs.add_parser(
        "export",
        help="write the features of an index to a file",
        description="Write features, ids, paths and labels to one file, every number as the index has it.",
        epilog="`searchengine import` reads both formats back, bit for bit.",
    )
    giving.set_defaults(act=act_export)
    add_index_dir(giving)
    add_images_dir(giving)
    giving.add_argument("--out", metavar="FILE", type=Path, required=True, help="FILE.npz, or FILE.parquet")
    add_json(giving)


def act_import(options: argparse.Namespace) -> int:
    """Run ``import``."""
    from searchengine.exchange import Columns, ImportOptions, import_features
    from searchengine.progress import Bar

    with Bar() as bar:
        done = import_features(
            options.file.expanduser(),
            options.index_dir,
            ImportOptions(
                columns=Columns(options.features, options.ids, options.labels, options.paths),
                metric=options.metric,
                normalize=options.normalize,
                images=options.images,
                name=options.name,
                append=options.append,
            ),
            bar,
        )
    if done.left_out:
        names = ", ".join(done.left_out[:10]) + (", ..." if len(done.left_out) > 10 else "")
        print_note(f"Columns that were not used: {names}.")
    if options.json:
        print_json(done.to_dict())
        return 0
    told = f"{done.added} features of {done.dimension} numbers imported, {done.labelled} with a label"
    if options.images is not None:
        told += f", {done.pictures} with a picture"
    length = "; they have length 1, so euclidean, cosine and inner-product rank alike" if done.normalized else ""
    print_result(f"{options.index_dir}: {told}{length} ({done.seconds:.1f} s)")
    return 0


def act_export(options: argparse.Namespace) -> int:
    """Run ``export``."""
    from searchengine.engine import open_index
    from searchengine.exchange import export_index
    from searchengine.progress import Bar

    index = open_index(options.index_dir, images_dir=options.images_dir)
    try:
        with Bar() as bar:
            done = export_index(index, options.out.expanduser(), bar)
    finally:
        index.close()
    if options.json:
        print_json(done.to_dict())
    else:
        print_result(f"{done.file}: {done.rows} features of {done.dimension} numbers, {done.bytes / 1e6:.1f} MB")
    return 0
