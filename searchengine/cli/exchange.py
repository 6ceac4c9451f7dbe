"""Commands that exchange data: ``searchengine import``, ``export`` and ``download``."""

from __future__ import annotations

import shlex
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchengine.address import folder_of
from searchengine.cli.command import COUNT, PATH, choice, flag, json_flag, option, options, section, verb
from searchengine.cli.options import INDEX, INDEX_FOLDER, MILVUS, metric_option, open_index, settings_options
from searchengine.cli.output import print_answer, print_json, print_note, print_result
from searchengine.files import file_size
from searchengine.progress import Bar

if TYPE_CHECKING:
    from searchengine.settings import Settings

_IMPORT = """\
Examples:
  searchengine import cifar10.npz --index-dir cifar10
  searchengine import image_train_data.csv --features deep_features --index-dir cifar10
  searchengine import vectors.npy --labels labels.txt --paths names.txt --images ~/photos
"""
_FILE = "a column, a file (.npy, or text with one per line), or none to ignore them"


@verb("import", _IMPORT)
@click.argument("file", metavar="FEATURES", type=PATH)
@section(
    "Contents of the file",
    option("--features NAME", "Array, or column of vectors."),
    option("--ids NAME|FILE|none", f"Distinct whole numbers from 0 (default: the rows are numbered): {_FILE}."),
    option("--labels NAME|FILE|none", f"Label or list of labels for each row: {_FILE}."),
    option("--paths NAME|FILE|none", f"Image files, relative to --images: {_FILE}."),
)
@option("--images DIR", "Folder of the images, if you have them.", PATH)
@option("--name TEXT", "Description of the features (default: the name of the file).")
@option(
    "--normalize",
    "Keep every number unchanged (none, default), or scale each feature to length 1 (l2).",
    choice("none", "l2"),
    default="none",
)
@metric_option("that of the index the file was exported from, or euclidean")
@flag("--append", "Add to an index that was imported earlier.")
@settings_options("index_dir", index_dir=INDEX_FOLDER)
@json_flag
def import_(settings: Settings, file: Path, as_json: bool, **flags: Any) -> None:
    """Make an index from features computed by another program.

    Such an index needs no model: search it with --id or --vector.

    \b
      .npy      an array of shape (rows, dimension)
      .npz      an array of features and, with one value per row, arrays of ids, labels and paths
      .parquet  a column of lists, or one column per number   (needs PyArrow)
      .csv      one column per number, or a column with each vector as text: [1.0 2.0] or array('d', [1.0, 2.0])

    Columns with common names are recognised (features, deep_features, embedding, ...; id; label, class, ...; path,
    filename, ...). Pass the names of the others. If any row is invalid, nothing is imported.
    """
    from searchengine.exchange import Columns, ImportOptions, import_features

    folder = folder_of(settings.index_dir[0], "import")
    columns = Columns(**{name: flags.pop(name) for name in ("features", "ids", "labels", "paths")})
    with Bar() as bar:
        imported = import_features(file.expanduser(), folder, ImportOptions(columns=columns, **flags), bar)
    if imported.left_out:
        names = ", ".join(imported.left_out[:10]) + (", ..." if len(imported.left_out) > 10 else "")
        print_note(f"Unused columns: {names}.")
    counts = f"{imported.added} features of {imported.dimension} numbers imported, {imported.labelled} with a label"
    if flags["images"] is not None:
        counts += f", {imported.pictures} with a picture"
    length = "; they have length 1, so euclidean, cosine and inner-product rank alike" if imported.normalized else ""
    print_answer(asdict(imported), f"{folder}: {counts}{length} ({imported.seconds:.1f} s)", as_json=as_json)


@verb("export", "`searchengine import` reads each format back, bit for bit.")
@settings_options(*INDEX, *MILVUS)
@option("--out FILE", "File to write: FILE.npz, FILE.parquet or FILE.csv.", PATH, required=True)
@json_flag
def export(settings: Settings, out: Path, as_json: bool) -> None:
    """Write the features of an index to a file.

    The file also contains ids, paths and labels. Every number is written exactly as it is in the index.
    """
    from searchengine.exchange import export_index

    with closing(open_index(settings)) as index, Bar() as bar:
        exported = export_index(index, out.expanduser(), bar)
    text = f"{exported.file}: {exported.rows} features of {exported.dimension} numbers, {file_size(exported.bytes)}"
    print_answer(asdict(exported), text, as_json=as_json)


COLLECTIONS = ("coco-val2017", "coco-train2017", "cifar10", "open-images")
_BY_CLASS = "open-images"
SPLITS = ("validation", "test", "train")  # of Open Images
_DOWNLOAD = """\
Examples:
  searchengine download coco-val2017 --to coco
  searchengine download cifar10 --to cifar10
  searchengine download open-images --classes Cat Dog "Polar bear" --images 200 --to pets

To resume an interrupted download, run the same command again. If the collection is complete, nothing happens.

Without a network connection, get the archives elsewhere and keep their names. They are verified and left unchanged:
  searchengine download coco-val2017 --archive val2017.zip --archive annotations_trainval2017.zip --to coco

Open Images has some 20 000 classes; if a name is unknown, the closest ones are listed. The small splits are searched
first; the table of the largest, train, has 2 GB. To add images later, give more classes or a larger N with the same
folder. The photographs are by many people, most of them under CC BY 2.0:
https://storage.googleapis.com/openimages/web
"""


@verb("download", _DOWNLOAD)
@click.argument("name", metavar="NAME", type=choice(*COLLECTIONS))
@option("--to DIR", "Folder for the collection.", PATH, required=True)
@flag("--no-labels", "Skip archives that contain only labels (COCO).")
@options(
    "--archive FILE",
    "Use this copy of a COCO or CIFAR-10 archive instead of downloading it. Repeatable.",
    PATH,
    name="archives",
    greedy=True,
)
@flag("--keep", "Keep the downloaded archives in DIR/.download.")
@section(
    f"Options for {_BY_CLASS}",
    options(
        "--classes CLASS", "One or more classes that the photographs should show, in upper or lower case.", greedy=True
    ),
    option("--images N", "Number of photographs per class (default: 100).", COUNT),
    options(
        "--split",
        "One or more splits to search, in this order (default: validation test train).",
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
    """Download a published collection of images.

    The collection is fetched from its publisher, verified and unpacked into a folder that can be indexed:

    \b
      coco-val2017    COCO 2017, validation: 5 000 photographs, 0.8 GB and 0.25 GB of labels
      coco-train2017  COCO 2017, training: 118 287 photographs, 19 GB and 0.25 GB of labels
      cifar10         CIFAR-10: 60 000 images of 32 x 32 in ten classes, 0.17 GB
      open-images     Open Images V7: photographs of the classes you choose, 0.3 MB each
    """
    from searchengine.exchange.collections import DATASETS, DownloadOptions, download_dataset
    from searchengine.exchange.open_images import Selection, download_open_images

    by_class = name == _BY_CLASS
    if by_class and not classes:
        raise click.UsageError(
            f"{name} is downloaded by class. Add --classes, for example --classes Cat Dog --images 200"
        )
    if by_class and archives:
        raise click.UsageError(f"{name} has no archives. Leave out --archive")
    if not by_class and (classes or images or splits):
        raise click.UsageError(f"--classes, --images and --split can only be used with {_BY_CLASS}, not with {name}")
    to = to.expanduser()
    with Bar() as bar:
        if by_class:
            selection = Selection(classes, images or 100, tuple(dict.fromkeys(splits or SPLITS)))
            collection = download_open_images(selection, to, progress=bar)
        else:
            options = DownloadOptions(not no_labels, keep, [archive.expanduser() for archive in archives])
            collection = download_dataset(DATASETS[name], to, options, progress=bar)
    if as_json:
        label_file = None if collection.label_file is None else str(collection.label_file)
        print_json({"pictures": str(collection.pictures), "labels": label_file, "files": collection.files})
        return
    if collection.files == 0:
        print_note("Nothing to do: the collection is complete.")
    command = ["searchengine", "index", str(collection.pictures), "--index-dir", name]
    command += [] if collection.label_file is None else ["--labels", str(collection.label_file)]
    print_note("Index it with:")
    print_result(shlex.join(command))
