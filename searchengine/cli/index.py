"""``searchengine index`` and ``python offline_index.py``: folders of images -> index."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchengine.address import folder_of
from searchengine.cli.command import COUNT, PATH, choice, flag, json_flag, option, options, section, verb
from searchengine.cli.options import MILVUS, NEW_IN_MILVUS, RAY, extractor_options, metric_option, settings_options
from searchengine.cli.output import print_json, print_note, print_result
from searchengine.progress import Bar

if TYPE_CHECKING:
    from searchengine.indexing import Summary
    from searchengine.settings import Settings

_EXAMPLES = """\
examples:
  searchengine index ~/Pictures --model efficientnet-lite0     no download needed
  searchengine index val2017 --index-dir coco              VGG16 fc2; fetches its weights (553 MB) once
  searchengine index val2017 --index-dir coco              again: only what is new
  searchengine index photos scans --exclude '*.png' --exclude 'private/*'
  searchengine index photos --model resnet50 --index-dir resnet
  searchengine index photos --layer block5_pool --pooling gem --index-dir gem
  searchengine index /shared/photos --ray 10.0.0.5:6379       read and embedded by the machines of a Ray cluster
  searchengine index photos --weights vgg16_weights_tf_dim_ordering_tf_kernels.h5
(`python offline_index.py` is `searchengine index` by another name)

exit status: 0 done; 1 nothing could be indexed, or anything was skipped under --strict; 2 wrong usage
"""


@verb("index", "make an index of folders of images, or bring it up to date", _EXAMPLES)
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=PATH)
@section(
    "Which images",
    options("--exclude PATTERN", "leave out what matches; may be repeated"),
    flag(
        "--no-default-excludes",
        "take also what is left out by default: hidden files, recycle bins, snapshots, thumbnails and previews that "
        "other programs keep, folders with a .nomedia file",
        name="default_excludes",
        flag_value=False,
        default=True,
    ),
    flag("--follow-links", "take also what links lead to that lead out of the image folder"),
    option(
        "--limit N",
        "take the first N files only; removes nothing (so it cannot be combined with --rebuild of an index)",
        COUNT,
    ),
    option(
        "--labels folder|none|FILE",
        "where labels come from: the name of the folder of an image, or a file: CSV with the columns path and label "
        "(a row for each label), or COCO's instances_*.json (default: folder, or as the index was made)",
    ),
)
@section(
    "The extractor (default: VGG16 fc2, or what the index was made with)",
    option(
        "--model NAME|FILE",
        "vgg16; efficientnet-lite0: small, fast, and installed with the program; any that `searchengine models` "
        "lists, CLIP, SigLIP and DINOv2 among them; a .keras file of your own; or the folder or address (hf://...) of "
        "a preset of KerasHub",
    ),
    *extractor_options("for vgg16 fc2"),
    option("--normalize", "features of length 1 (default), or raw activations", choice("l2", "none")),
    flag(
        "--scaled-decoding",
        "decode large JPEGs at a half, a quarter or an eighth, but at least twice the model's input size: much faster "
        "for photos of many megapixels; features differ slightly, so it is recorded in the index (EfficientNet-Lite "
        "always does it)",
    ),
    metric_option("euclidean, or as the index was made"),
    option("--batch-size N", "images that the model embeds at a time (default: 32)", COUNT, default=32),
)
@section(
    "The run",
    flag("--rebuild", "embed everything again; the old index answers meanwhile"),
    flag("--prune", "remove missing images even if they are more than a fifth"),
    flag(
        "--prune-all",
        "also if an image folder is empty or has lost most of its images, as when its disk is not mounted",
    ),
    flag("--check-content", "read every file again, to find those that changed while their size and times were kept"),
    flag("--relocate", "the folders of the index have moved to these places"),
    flag("--strict", "exit with 1 if any file had to be skipped"),
)
@settings_options(*RAY, *MILVUS, *NEW_IN_MILVUS, "index_dir", "precision", "runtime", "ann")
@json_flag
def index(settings: Settings, images: tuple[Path, ...], strict: bool, as_json: bool, **flags: Any) -> int:
    """Make an index of one or more folders of images, or bring it up to date.

    The first run embeds every image. Later ones embed only what is new or changed; files that moved keep their id, and
    files that are gone are removed. A run that was stopped resumes with the same command.
    """
    from searchengine.indexing import update_index

    address = settings.index_dir[0]
    flags |= {name: getattr(settings, name) for name in ("precision", "runtime", "ann", *RAY)}
    with Bar() as bar:
        summary = update_index(images, address, progress=bar, **flags)
    if as_json:
        print_json(summary.to_dict())
    else:
        print_result(f"{address}: {summarize(summary)}")
    if summary.images == 0:
        print_note(
            "Nothing could be indexed: no image was found that can be read. Formats: JPEG, PNG, WebP, GIF, BMP, TIFF, "
            "AVIF, HEIC."
        )
        return 1
    return 1 if strict and summary.skipped else 0


def summarize(summary: Summary) -> str:
    """What a run did, in half a sentence."""
    names = ("added", "changed", "moved", "removed", "unchanged", "skipped", "missing", "vanished", "dated")
    counts = ", ".join(f"{getattr(summary, name)} {name}" for name in names if getattr(summary, name))
    return f"{summary.images} images ({counts or 'nothing to do'}) in {summary.seconds:.1f} s"


_ANN = """\
examples:
  searchengine ann
  searchengine ann --remove
"""


@verb("ann", "build what makes searches of a large index quick", _ANN)
@flag("--remove", "delete it: searches are exact again")
@settings_options("index_dir")
@json_flag
def ann(settings: Settings, remove: bool, as_json: bool) -> None:
    """Build the structure for approximate search of an index, whatever its size, and measure how much it finds.

    `searchengine index` does so by itself where an exact search takes longer than 50 ms, unless --ann off is given.
    """
    from searchengine.derived import timestamp
    from searchengine.index import building
    from searchengine.index.local import LocalIndex
    from searchengine.index.storage import storage_of

    folder = folder_of(settings.index_dir[0], "ann")
    with (
        closing(LocalIndex.open(folder, exact=True)) as index,
        storage_of(folder).writing(timestamp()),
        Bar() as bar,
    ):
        if remove:
            building.remove(folder)
            sheet = None
        else:
            sheet = building.build(folder, index.state(), bar)
    if as_json:
        print_json(None if sheet is None else asdict(sheet))
    elif sheet is None:
        print_result(f"{folder}: searches are exact")
    else:
        print_result(f"{folder}: quick search finds {sheet.found} of what exact search finds ({sheet.factory})")
