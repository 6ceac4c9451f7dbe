"""``searchengine index`` and ``python offline_index.py``: folders -> index."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from searchengine.cli.options import (
    add_index_dir,
    add_json,
    add_metric,
    add_running,
    print_json,
    print_note,
    print_result,
    whole_number,
)

_DESCRIPTION = """\
Make an index of one or more folders of images, or bring it up to date.

The first run embeds every image. Later ones embed only what is new or changed; files that moved keep their id, and
files that are gone are taken out. A run that was stopped goes on with the same command.
"""

_EPILOG = """\
examples:
  python offline_index.py ~/Pictures --model compact            no download needed
  python offline_index.py val2017 --index-dir coco              VGG16 fc2; fetches its weights (553 MB) once
  python offline_index.py val2017 --index-dir coco              again: only what is new
  python offline_index.py photos scans --exclude '*.png' --exclude 'private/*'
  python offline_index.py photos --model resnet50 --index-dir resnet
  python offline_index.py photos --layer block5_pool --pooling gem --index-dir gem
  python offline_index.py photos --weights vgg16_weights_tf_dim_ordering_tf_kernels.h5

exit status: 0 done; 1 nothing could be indexed, or anything was skipped under --strict; 2 wrong usage
"""


def add_verbs(verbs: Any) -> None:
    """Add ``index``."""
    parser = verbs.add_parser(
        "index",
        help="make an index of folders of images, or bring it up to date",
        description=_DESCRIPTION,
        epilog=_EPILOG.replace("python offline_index.py", "searchengine index"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of an indexing run."""
    parser.set_defaults(act=act)
    parser.add_argument(
        "images", metavar="IMAGES", nargs="+", type=Path, help="a folder of images, searched to its depths"
    )
    add_index_dir(parser)
    which = parser.add_argument_group("which images")
    which.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="leave out what matches; may be repeated"
    )
    which.add_argument(
        "--limit",
        metavar="N",
        type=whole_number,
        help="look at the first N files only; removes nothing (and so does not go with --rebuild of an index)",
    )
    which.add_argument(
        "--labels",
        metavar="folder|none|FILE",
        help="an image's label is the name of the folder that it lies in, or what a file says: CSV with the columns "
        "path and label (a row for each label), or COCO's instances_*.json (default: folder, or as the index was made)",
    )
    model = parser.add_argument_group("the extractor (default: VGG16 fc2, or what the index was made with)")
    model.add_argument(
        "--model",
        metavar="NAME|FILE",
        help="vgg16; compact: small, fast, and shipped with the program; any that `searchengine models` lists; or a "
        ".keras file of one's own",
    )
    model.add_argument(
        "--layer",
        metavar="NAME",
        action="append",
        help="the layer whose output is the feature (default for vgg16: fc2); repeated, several stand side by side",
    )
    model.add_argument(
        "--pooling",
        choices=("none", "avg", "max", "gem"),
        help="how a convolutional layer becomes one number a channel; none (default) keeps every place of it",
    )
    model.add_argument("--normalize", choices=("l2", "none"), help="features of length 1 (default), or raw activations")
    model.add_argument(
        "--weights", metavar="FILE", help="a weights file of one's own, or the published one: .weights.h5 or .h5"
    )
    model.add_argument(
        "--preprocessing",
        choices=("none", "unit", "tf", "torch", "caffe"),
        help="of a .keras file: how pixels of 0 to 255 are brought to what it was trained on (default: none, the model "
        "does it itself); unit is 0 to 1, tf is -1 to 1, torch and caffe are those of keras.applications",
    )
    model.add_argument(
        "--input-size",
        metavar="PIXELS",
        type=whole_number,
        help="of a .keras file that takes pictures of any size: the one to bring them to",
    )
    model.add_argument(
        "--scaled-decoding",
        action="store_true",
        help="decode large JPEGs at a half, a quarter or an eighth, to no less than twice the model's input size: much "
        "faster for photos of many megapixels; features differ a little, so it belongs to the index (compact always "
        "does it)",
    )
    add_metric(model, "euclidean, or as the index was made")  # type: ignore[arg-type]
    add_running(model)  # type: ignore[arg-type]
    model.add_argument(
        "--batch-size", metavar="N", type=whole_number, default=32, help="images at a time (default: 32)"
    )
    going = parser.add_argument_group("the run")
    going.add_argument("--rebuild", action="store_true", help="embed everything anew; the old index answers meanwhile")
    going.add_argument("--prune", action="store_true", help="take out what is gone even if it is more than a fifth")
    going.add_argument("--relocate", action="store_true", help="the folders of the index are now at these places")
    going.add_argument("--strict", action="store_true", help="exit with 1 if any file had to be skipped")
    add_json(going)  # type: ignore[arg-type]


def act(options: argparse.Namespace) -> int:
    """Run it."""
    from searchengine.indexing import IndexingOptions, update_index
    from searchengine.progress import Bar

    flags = {field.name: getattr(options, field.name) for field in fields(IndexingOptions) if field.name in options}
    with Bar() as bar:
        summary = update_index(options.images, options.index_dir, progress=bar, **flags)
    if options.json:
        print_json(summary.to_dict())
    else:
        print_result(_sentence(summary.to_dict(), options.index_dir))
    if summary.images == 0:
        print_note(
            "Nothing could be indexed: no image was found that can be read. Formats: JPEG, PNG, WebP, GIF, BMP, TIFF, "
            "AVIF, HEIC."
        )
        return 1
    return 1 if options.strict and summary.skipped else 0


def _sentence(counts: dict[str, int | float], index_dir: Path) -> str:
    names = ("added", "changed", "moved", "removed", "unchanged", "skipped", "missing", "vanished")
    told = ", ".join(f"{counts[name]} {name}" for name in names if counts[name]) or "nothing to do"
    return f"{index_dir}: {counts['images']} images ({told}) in {counts['seconds']:.1f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """``python offline_index.py``."""
    from searchengine.cli.main import run

    return run("offline_index.py", _script, arguments)


def _script() -> argparse.ArgumentParser:
    from searchengine.cli.parsing import VerbParser

    parser = VerbParser(
        prog="offline_index.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verb="index")
    add_flags(parser)
    return parser
