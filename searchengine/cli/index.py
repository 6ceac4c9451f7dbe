"""``searchengine index``: folders of images -> index; and ``ann`` and ``words``, which prepare its searches."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchengine.address import folder_of
from searchengine.cli.command import COUNT, PATH, choice, flag, json_flag, option, options, section, verb
from searchengine.cli.options import (
    INDEX,
    INDEX_FOLDER,
    MILVUS,
    NEW_IN_MILVUS,
    RAY,
    extractor_options,
    metric_option,
    open_index,
    settings_options,
)
from searchengine.cli.output import print_answer, print_note
from searchengine.errors import SearchEngineError
from searchengine.progress import Bar

if TYPE_CHECKING:
    from searchengine.indexing import Summary
    from searchengine.settings import Settings

_EXAMPLES = """\
Examples:
  searchengine index ~/Pictures --model efficientnet-lite0   no download needed
  searchengine index val2017 --index-dir coco                VGG16 fc2; downloads its weights (553 MB) once
  searchengine index val2017 --index-dir coco                the same again: embeds only what is new
  searchengine index photos scans --exclude '*.png' --exclude 'private/*'
  searchengine index photos --model resnet50 --index-dir resnet
  searchengine index photos --layer block5_pool --pooling gem --index-dir gem
  searchengine index /shared/photos --ray 10.0.0.5:6379      shares the work among a Ray cluster
  searchengine index photos --weights vgg16_weights_tf_dim_ordering_tf_kernels.h5

`python offline_index.py` does the same as `searchengine index`.

Exit status: 0 success; 1 nothing could be indexed, or with --strict a file was skipped; 2 wrong usage.
"""


@verb("index", _EXAMPLES)
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=PATH)
@section(
    "Images",
    options("--exclude PATTERN", "Skip files and folders that match, such as '*.png' or 'private/*'. Repeatable."),
    flag(
        "--no-default-excludes",
        "Include what is skipped by default: hidden files, recycle bins, snapshots, thumbnails and previews made by "
        "other programs, and folders with a .nomedia file.",
        name="default_excludes",
        flag_value=False,
        default=True,
    ),
    flag("--follow-links", "Follow links that lead out of the image folder."),
    option(
        "--limit N",
        "Index only the first N files, and remove nothing. An existing index cannot be rebuilt with it.",
        COUNT,
    ),
    option(
        "--labels folder|none|FILE",
        "Source of the labels: folder takes the name of each image's folder; FILE is a CSV file with the columns path "
        "and label (one row per label), or a COCO instances_*.json (default: folder, or as the index was made).",
    ),
)
@section(
    "Model (default: VGG16 fc2, or as the index was made)",
    option(
        "--model NAME|FILE",
        "vgg16; efficientnet-lite0, which is small, fast and installed with the program; any other name that "
        "`searchengine models` lists, such as CLIP, SigLIP and DINOv2; your own .keras file; or the folder or address "
        "(hf://...) of a KerasHub preset.",
    ),
    *extractor_options("for vgg16, fc2"),
    option(
        "--normalize",
        "Scale features to length 1 (l2, default), or keep the raw activations (none).",
        choice("l2", "none"),
    ),
    flag(
        "--scaled-decoding",
        "Decode large JPEGs at a half, a quarter or an eighth of their size, but at least twice the model's input "
        "size. This is much faster for photos of many megapixels. Features differ slightly, so the index records it. "
        "EfficientNet-Lite always does this.",
    ),
    metric_option("euclidean, or as the index was made"),
    option("--batch-size N", "Number of images embedded at a time (default: 32).", COUNT, default=32),
)
@section(
    "Run",
    flag("--rebuild", "Embed everything again. Searches use the old index in the meantime."),
    flag("--prune", "Remove missing images even if they are more than a fifth of the index."),
    flag(
        "--prune-all",
        "Remove them even if a folder is empty or has lost most of its images, as when its disk is not mounted.",
    ),
    flag("--check-content", "Read every file again, to find changes that kept the size and the times of a file."),
    flag("--relocate", "Update the index for image folders that have moved to IMAGES."),
    flag("--strict", "Exit with status 1 if any file was skipped."),
)
@settings_options(*RAY, *MILVUS, *NEW_IN_MILVUS, "index_dir", "precision", "runtime", "ann")
@json_flag
def index(settings: Settings, images: tuple[Path, ...], strict: bool, as_json: bool, **flags: Any) -> int:
    """Index folders of images, or update an existing index.

    The first run embeds every image. Later runs embed only images that are new or changed; files that have moved keep
    their id, and files that are gone are removed. To resume an interrupted run, run the same command again.
    """
    from searchengine.indexing import update_index

    address = settings.index_dir[0]
    flags |= {name: getattr(settings, name) for name in ("precision", "runtime", "ann", *RAY)}
    with Bar() as bar:
        summary = update_index(images, address, progress=bar, **flags)
    print_answer(summary.to_dict(), f"{address}: {summarize(summary)}", as_json=as_json)
    if summary.images == 0:
        print_note(
            "Nothing could be indexed: no readable image was found. Formats: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, "
            "HEIC."
        )
        return 1
    return 1 if strict and summary.skipped else 0


def summarize(summary: Summary) -> str:
    """Return what a run did, in a few words."""
    names = ("added", "changed", "moved", "removed", "unchanged", "skipped", "missing", "vanished", "dated")
    counts = ", ".join(f"{getattr(summary, name)} {name}" for name in names if getattr(summary, name))
    return f"{summary.images} images ({counts or 'nothing to do'}) in {summary.seconds:.1f} s"


_ANN = """\
Examples:
  searchengine ann
  searchengine ann --remove
"""


@verb("ann", _ANN)
@flag("--remove", "Delete the structure, so that searches are exact again.")
@settings_options("index_dir", index_dir=INDEX_FOLDER)
@json_flag
def ann(settings: Settings, remove: bool, as_json: bool) -> None:
    """Build the structure that makes searches of a large index fast.

    The structure is built with FAISS, whatever the size of the index, and the share of the nearest images that it finds
    is measured. `searchengine index` does this automatically where an exact search takes longer than 50 ms, unless
    --ann off is given.
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
            sheet, text = None, "searches are exact"
        else:
            sheet = building.build(folder, index.state(), bar)
            text = f"approximate search finds {sheet.found} of the exact results ({sheet.factory})"
    print_answer(sheet and asdict(sheet), f"{folder}: {text}", as_json=as_json)


_WORDS = """\
Examples:
  searchengine words --install
  searchengine search --text "a dog on a beach"
"""


@verb("words", _WORDS)
@flag("--install", "Install the packages needed for searching by words, if any is missing (90 MB).")
@settings_options(*INDEX)
@json_flag
def words(settings: Settings, install: bool, as_json: bool) -> None:
    """Prepare an index for search by words, or say what is missing.

    An index made with CLIP or SigLIP understands words without further preparation. Any other index needs a network
    that knows the ImageNet classes, and a sentence encoder, which comes in a package. What the network sees in the
    images is stored for searching and for the filter --tag; no image is read again. `searchengine index` does the same
    where it can, so you need this command only for older indexes and for networks whose weights must be downloaded.
    """
    from searchengine.text.encoder import install_packages
    from searchengine.text.search import keep_seen, text_search
    from searchengine.text.words import Words, keep_tags

    if install:
        install_packages(print_note)
    with closing(open_index(settings)) as index:
        text_search(index, print_note)
        with suppress(SearchEngineError):  # the folder is read-only, or the model knows no classes
            classes = Words.of(index)
            keep_tags(classes, index)
            keep_seen(classes, index)
        images = len(index)
    text = f'{settings.index_dir[0]}: {images} images can be searched by words: searchengine search --text "a dog"'
    print_answer({"images": images, "ready": True}, text, as_json=as_json)
