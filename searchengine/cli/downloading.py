"""``searchengine download``: a published collection -> a folder to index."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from searchengine.cli.options import add_json, print_json, print_note, print_result, whole_number

_EPILOG = """\
examples:
  searchengine download coco-val2017 --to coco
  searchengine download cifar10 --to cifar10
  searchengine download open-images --classes Cat Dog "Polar bear" --images 200 --to pets

An interrupted download resumes with the same command; if everything is there, nothing happens.

Without a network, get the archives elsewhere, under their own names. They are checked and left as they are:
  searchengine download coco-val2017 --archive val2017.zip --archive annotations_trainval2017.zip --to coco

Open Images has some 20 000 classes; for a name that it does not have, the closest are listed. The small splits are
searched first. For more, later, name more classes or a larger N, and the same folder.
Its photographs are the work of many people, most under CC BY 2.0: https://storage.googleapis.com/openimages/web.
"""


def add_verbs(verbs: Any) -> None:
    """Add ``download``."""
    from searchengine.exchange.collections import DATASETS, open_images

    titles = {**{name: dataset.title for name, dataset in DATASETS.items()}, open_images.NAME: open_images.TITLE}
    parser = verbs.add_parser(
        "download",
        help="download a published collection of pictures",
        description="Download a collection from its publisher, check it, and unpack it into a folder to index:\n\n"
        + "\n".join(f"  {name:15} {title}" for name, title in titles.items()),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=act, refuse=parser.error)
    parser.add_argument("name", metavar="NAME", choices=tuple(titles), help=" or ".join(titles))
    parser.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder to put it into")
    parser.add_argument("--no-labels", action="store_true", help="leave out archives that hold labels only (COCO)")
    parser.add_argument(
        "--archive",
        metavar="FILE",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        help="a copy of a COCO or CIFAR-10 archive to use in place of a download",
    )
    parser.add_argument("--keep", action="store_true", help="keep the downloaded archives, in DIR/.download")
    chosen = parser.add_argument_group("open-images")
    chosen.add_argument(
        "--classes", metavar="CLASS", nargs="+", action="extend", help="what the photographs show; in any case"
    )
    chosen.add_argument(
        "--images", metavar="N", type=whole_number, help="how many photographs of each class (default: 100)"
    )
    chosen.add_argument(
        "--split",
        choices=open_images.SPLITS,
        nargs="+",
        action="extend",
        help="where to search, in this order (default: validation, then test, then train)",
    )
    add_json(parser)


def act(options: argparse.Namespace) -> int:
    """Run it."""
    from searchengine.exchange.collections import (
        DATASETS,
        DownloadOptions,
        Selection,
        download_dataset,
        download_open_images,
        open_images,
    )
    from searchengine.progress import Bar

    by_class = options.name == open_images.NAME
    if by_class and not options.classes:
        options.refuse(f"{options.name} is fetched by class: add --classes, for example --classes Cat Dog --images 200")
    if by_class and options.archive:
        options.refuse(f"{options.name} has no archives: leave out --archive")
    if not by_class and (options.classes or options.images or options.split):
        options.refuse(f"--classes, --images and --split belong to {open_images.NAME}, not to {options.name}")
    to = options.to.expanduser()
    with Bar() as bar:
        if by_class:
            splits = tuple(dict.fromkeys(options.split or open_images.SPLITS))
            done = download_open_images(Selection(options.classes, options.images or 100, splits), to, progress=bar)
        else:
            archives = [archive.expanduser() for archive in options.archive]
            wanted = DownloadOptions(labels=not options.no_labels, keep=options.keep, archives=archives)
            done = download_dataset(DATASETS[options.name], to, wanted, progress=bar)
    if options.json:
        label_file = None if done.label_file is None else str(done.label_file)
        print_json({"pictures": str(done.pictures), "labels": label_file, "files": done.files})
        return 0
    if done.files == 0:
        print_note("Everything is there already.")
    command = ["searchengine", "index", str(done.pictures), "--index-dir", options.name]
    if done.label_file is not None:
        command += ["--labels", str(done.label_file)]
    print_note("Index it with:")
    print_result(shlex.join(command))
    return 0
