"""``searchengine import``, ``export`` and ``download``: features in and out, and published collections."""

from __future__ import annotations

import shlex
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchengine.address import folder_of
from searchengine.cli.command import COUNT, PATH, choice, flag, json_flag, option, options, section, verb
from searchengine.cli.options import INDEX, MILVUS, metric_option, open_index, settings_options
from searchengine.cli.output import print_json, print_note, print_result
from searchengine.files import file_size
from searchengine.progress import Bar

if TYPE_CHECKING:
    from searchengine.settings import Settings

_IMPORT = """\
examples:
  searchengine import cifar10.npz --index-dir cifar10
  searchengine import image_train_data.csv --features deep_features --index-dir cifar10
  searchengine import vectors.npy --labels labels.txt --paths names.txt --images ~/photos
"""
_FILE = "a column, a file (.npy, or text with one per line), or none to leave them out"


@verb("import", "make an index of ready-made features", _IMPORT)
@click.argument("file", metavar="FEATURES", type=PATH)
@section(
    "What is what in the file",
    option("--features NAME", "the array, or the column of vectors"),
    option("--ids NAME|FILE|none", f"whole numbers from 0 up, all different (default: the rows are numbered): {_FILE}"),
    option("--labels NAME|FILE|none", f"a label, or a list of labels, for each row: {_FILE}"),
    option("--paths NAME|FILE|none", f"the image files, relative to --images: {_FILE}"),
)
@option("--images DIR", "the folder of the images, if you have them", PATH)
@option("--name TEXT", "a description of the features (default: the file's name)")
@option(
    "--normalize",
    "keep every number as it is (default), or scale each feature to length 1",
    choice("none", "l2"),
    default="none",
)
@metric_option("that of the index which the file was exported from, else euclidean")
@flag("--append", "add to an index that was imported before")
@settings_options("index_dir")
@json_flag
def import_(settings: Settings, file: Path, as_json: bool, **flags: Any) -> None:
    """Make an index of features that another program has made.

    No model is needed: search by --id or --vector.

    \b
      .npy      an array (rows, numbers in a feature)
      .npz      an array of features and, with a value a row each, ids, labels and paths
      .parquet  a column of lists, or a column of numbers each   (needs PyArrow)
      .csv      a column of numbers each, or one with the vector as text: [1.0 2.0] or array('d', [1.0, 2.0])

    Columns are recognised by usual names (features, deep_features, embedding, ...; id; label, class, ...; path,
    filename, ...); name them if they are called otherwise. If any row is wrong, nothing is imported.
    """
    from searchengine.exchange import Columns, ImportOptions, import_features

    folder = folder_of(settings.index_dir[0], "import")
    columns = Columns(**{name: flags.pop(name) for name in ("features", "ids", "labels", "paths")})
    with Bar() as bar:
        imported = import_features(file.expanduser(), folder, ImportOptions(columns=columns, **flags), bar)
    if imported.left_out:
        names = ", ".join(imported.left_out[:10]) + (", ..." if len(imported.left_out) > 10 else "")
        print_note(f"Columns that were not used: {names}.")
    if as_json:
        print_json(asdict(imported))
        return
    counts = f"{imported.added} features of {imported.dimension} numbers imported, {imported.labelled} with a label"
    if flags["images"] is not None:
        counts += f", {imported.pictures} with a picture"
    length = "; they have length 1, so euclidean, cosine and inner-product rank alike" if imported.normalized else ""
    print_result(f"{folder}: {counts}{length} ({imported.seconds:.1f} s)")


@verb(
    "export", "write the features of an index to a file", "`searchengine import` reads each format back, bit for bit."
)
@settings_options(*INDEX, *MILVUS)
@option("--out FILE", "FILE.npz, FILE.parquet or FILE.csv", PATH, required=True)
@json_flag
def export(settings: Settings, out: Path, as_json: bool) -> None:
    """Write features, ids, paths and labels to one file; every number is exactly that of the index."""
    from searchengine.exchange import export_index

    with closing(open_index(settings)) as index, Bar() as bar:
        exported = export_index(index, out.expanduser(), bar)
    if as_json:
        print_json(asdict(exported))
    else:
        size = file_size(exported.bytes)
        print_result(f"{exported.file}: {exported.rows} features of {exported.dimension} numbers, {size}")


COLLECTIONS = ("coco-val2017", "coco-train2017", "cifar10", "open-images")
_BY_CLASS = "open-images"
SPLITS = ("validation", "test", "train")  # of Open Images
_DOWNLOAD = """\
examples:
  searchengine download coco-val2017 --to coco
  searchengine download cifar10 --to cifar10
  searchengine download open-images --classes Cat Dog "Polar bear" --images 200 --to pets

An interrupted download resumes with the same command; if everything is there, nothing happens.

Without a network, get the archives elsewhere, under their own names. They are checked and left as they are:
  searchengine download coco-val2017 --archive val2017.zip --archive annotations_trainval2017.zip --to coco

Open Images has some 20 000 classes; for a name that it does not have, the closest are listed. The small splits are
searched first; the table of the largest, train, has 2 GB. For more photographs later, name more classes or a larger N,
and the same folder. They are the work of many people, most under CC BY 2.0:
https://storage.googleapis.com/openimages/web.
"""


@verb("download", "download a published collection of pictures", _DOWNLOAD)
@click.argument("name", metavar="NAME", type=choice(*COLLECTIONS))
@option("--to DIR", "the folder to put it into", PATH, required=True)
@flag("--no-labels", "leave out archives that hold labels only (COCO)")
@options(
    "--archive FILE",
    "a copy of a COCO or CIFAR-10 archive to use in place of a download",
    PATH,
    name="archives",
    greedy=True,
)
@flag("--keep", "keep the downloaded archives, in DIR/.download")
@section(
    _BY_CLASS,
    options("--classes CLASS", "what the photographs show, in upper or lower case", greedy=True),
    option("--images N", "how many photographs of each class (default: 100)", COUNT),
    options(
        "--split",
        "where to search, in this order (default: validation, then test, then train)",
        choice(*SPLITS),
        name="splits",
        greedy=True,
    ),
)
@json_flag
def download(
    name: str,
    to: Path,
    no_labels: bool,
    archives: tuple[Path, ...],
    keep: bool,
    classes: tuple[str, ...],
    images: int | None,
    splits: tuple[str, ...],
    as_json: bool,
) -> None:
    """Download a collection from its publisher, check it, and unpack it into a folder to index.

    \b
      coco-val2017    COCO 2017, validation: 5 000 photographs, 0.8 GB and 0.25 GB of labels
      coco-train2017  COCO 2017, training: 118 287 photographs, 19 GB and 0.25 GB of labels
      cifar10         CIFAR-10: 60 000 images of 32 x 32 in ten classes, 0.17 GB
      open-images     Open Images V7: photographs of the classes that you name, 0.3 MB each
    """
    from searchengine.exchange.collections import DATASETS, DownloadOptions, download_dataset
    from searchengine.exchange.open_images import Selection, download_open_images

    by_class = name == _BY_CLASS
    if by_class and not classes:
        raise click.UsageError(f"{name} is fetched by class: add --classes, for example --classes Cat Dog --images 200")
    if by_class and archives:
        raise click.UsageError(f"{name} has no archives: leave out --archive")
    if not by_class and (classes or images or splits):
        raise click.UsageError(f"--classes, --images and --split belong to {_BY_CLASS}, not to {name}")
    to = to.expanduser()
    with Bar() as bar:
        if by_class:
            selection = Selection(classes, images or 100, tuple(dict.fromkeys(splits or SPLITS)))
            done = download_open_images(selection, to, progress=bar)
        else:
            options = DownloadOptions(not no_labels, keep, [archive.expanduser() for archive in archives])
            done = download_dataset(DATASETS[name], to, options, progress=bar)
    if as_json:
        label_file = None if done.label_file is None else str(done.label_file)
        print_json({"pictures": str(done.pictures), "labels": label_file, "files": done.files})
        return
    if done.files == 0:
        print_note("Nothing to do: the collection is complete.")
    command = ["searchengine", "index", str(done.pictures), "--index-dir", name]
    command += [] if done.label_file is None else ["--labels", str(done.label_file)]
    print_note("Index it with:")
    print_result(shlex.join(command))
