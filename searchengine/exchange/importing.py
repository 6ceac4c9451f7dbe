"""Import a file of ready-made features. The index has no model and is searched by id or by vector."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import timestamp
from searchengine.errors import IndexingError, IndexNotFoundError, check_name
from searchengine.exchange.formats import read_features
from searchengine.exchange.table import Columns, FeatureTable
from searchengine.extractors.extractor import normalized
from searchengine.extractors.spec import NORMALIZATIONS, ExtractorSpec
from searchengine.images import decode
from searchengine.index import column_reader, metrics
from searchengine.index.features import matrices
from searchengine.index.storage import storage_of
from searchengine.index.types import ImageFolder, ImageRow
from searchengine.index.writer import IndexWriter
from searchengine.indexing.reading import read
from searchengine.indexing.scan import Candidate, assign_roots, check_folder
from searchengine.processors import processors
from searchengine.progress import QUIET, Progress

_UNIT_TOLERANCE = 1e-4  # for squared lengths; those of float16 vectors of length 1 differ by less
_COLOUR_SIZE = (32, 32)  # pixels, enough for an average colour; JPEGs are decoded at a reduced scale


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import features.

    Attributes:
        columns: the role of each column of the file.
        metric: None for the metric of the index, or of the index that the file was exported from, or else Euclidean.
        normalize: "none" keeps every number as it is, "l2" scales each row to length 1.
        images: the folder that the paths are relative to, if the pictures are available.
        name: a description of the features.
        append: add to an index that was imported before.
    """

    columns: Columns = field(default_factory=Columns)
    metric: str | None = None
    normalize: str = "none"
    images: Path | None = None
    name: str | None = None
    append: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import. ``pictures`` counts the rows with a picture; ``left_out`` names unused columns."""

    added: int
    dimension: int
    images: int
    labelled: int
    pictures: int
    normalized: bool
    left_out: tuple[str, ...]
    seconds: float


def imported_spec(*, unit: bool) -> ExtractorSpec:
    """Return the specification that stands in for an extractor. ``unit``: the features have length 1."""
    return ExtractorSpec(
        model="imported",
        layer=None,
        pooling="none",
        normalize="l2" if unit else "none",
        weights="none",
        input_size=(0, 0),
        full_decode=True,
    )


def import_features(
    file: Path, index_dir: Path, options: ImportOptions | None = None, progress: Progress = QUIET
) -> Imported:
    """Make an index from a file of features. If anything is wrong, nothing is imported.

    Raises:
        IndexingError: the file does not hold features, or holds NaN, infinity, ragged rows or an id twice; the folder
            already holds an index, even an empty one of photos; the disk is full.
        UnknownNameError: there is no such metric or normalisation.
        IndexLockedError: another run is writing to the index.
    """
    options = options or ImportOptions()
    started = time.monotonic()
    if options.metric is not None:
        metrics.check_metric(options.metric)
    check_name("normalisation", options.normalize, NORMALIZATIONS)
    images = None if options.images is None else options.images.expanduser().absolute()
    if images is not None:
        check_folder(images)
    with storage_of(index_dir).writing(timestamp()), ExitStack() as stack:
        writer = _open_existing(index_dir, options)  # refuses a wrong folder before reading a long file
        if writer is not None:
            stack.enter_context(writer)
        table = read_features(file, options.columns)
        dimension = table.dimension
        unit = _check_numbers(table, file, progress) or options.normalize == "l2"
        spec = imported_spec(unit=unit)
        manifest = _manifest(options.name or file.name, spec, options.metric or table.metric or metrics.EUCLIDEAN)
        if writer is None:
            writer = stack.enter_context(_new_index(index_dir, manifest, dimension))
        elif not writer.catalog.count():
            writer.empty(manifest, dimension)
        _check_same_kind(writer, dimension, spec)
        root, new_roots = (None, []) if images is None else _root(writer, images)
        rows = _rows(table, images, root)
        if images is not None:
            rows = _with_pictures(rows, images, progress)
        _check_unused(writer, rows)
        progress.start(len(rows))
        writer.commit_ready(_normalized_blocks(table, options.normalize, progress), rows, new_roots)
        if options.metric is not None:
            writer.set({"metric": options.metric})
        writer.back_up()
        column_reader.keep(index_dir)
        return Imported(
            added=len(rows),
            dimension=dimension,
            images=writer.catalog.count(),
            labelled=sum(bool(row.labels) for row in rows),
            pictures=sum(row.width is not None for row in rows),
            normalized=unit,
            left_out=table.left_out,
            seconds=round(time.monotonic() - started, 3),
        )


# -- the index ------------------------------------------------------------------------------------------------------


def _open_existing(folder: Path, options: ImportOptions) -> IndexWriter | None:
    """Open the index in a folder for an import; None if there is no index, IndexingError if it takes no features."""
    try:
        writer = IndexWriter.open(folder)
    except IndexNotFoundError:
        return None
    try:
        images = writer.catalog.count()
        spec = ExtractorSpec.from_json(writer.catalog.need("spec"))
        extractor = writer.catalog.need("extractor")
        existing = f"{folder} already holds an index of {images} images ({extractor})."
        if not spec.is_imported:  # even an empty one still has its folders and the ids it has given out
            raise IndexingError(
                f"{existing} Features cannot be imported into an index of photos. Choose another --index-dir."
            )
        if images and not options.append:
            raise IndexingError(f"{existing} Give --append to add to it, or choose another --index-dir.")
    except BaseException:
        writer.close()
        raise
    return writer


@contextmanager
def _new_index(folder: Path, manifest: dict[str, str], dimension: int) -> Iterator[IndexWriter]:
    """Create an index; remove it if the block raises an error."""
    try:
        with IndexWriter.create(folder, manifest, dimension=dimension) as writer:
            yield writer
    except BaseException:
        for file in [*folder.glob("catalog.sqlite*"), *matrices(folder)]:
            file.unlink(missing_ok=True)
        raise


def _manifest(name: str, spec: ExtractorSpec, metric: str) -> dict[str, str]:
    unit = spec.normalize == "l2"
    return {
        "spec": spec.to_json(),
        "fingerprint": spec.fingerprint,
        "extractor": f"Imported features ({name}), {'L2-normalised' if unit else 'not normalised'}",
        "weights_file": "",
        "precision": "float32",
        "runtime": "none",
        "device": "none",
        "normalized": str(int(unit)),
        "metric": metric,
        "labels": "none",
    }


def _check_same_kind(writer: IndexWriter, dimension: int, spec: ExtractorSpec) -> None:
    if writer.dimension != dimension or writer.catalog.need("fingerprint") != spec.fingerprint:
        raise IndexingError(
            f"The index in {writer.folder} holds features of {writer.dimension} numbers "
            f"({writer.catalog.need('extractor')}), but those in the file have {dimension} ({spec.title}). Choose "
            "another --index-dir."
        )


def _check_unused(writer: IndexWriter, rows: Sequence[ImageRow]) -> None:
    """Raise IndexingError if the index already has an id or a path of the rows, or if no ids are left."""
    ids = writer.catalog.ids()
    places = writer.catalog.places()
    first, unnumbered = writer.catalog.last_id() + 1, sum(row.id is None for row in rows)
    if unnumbered and first + unnumbered > 2**63:
        raise IndexingError(
            f"The index has ids up to {first - 1}, so new rows cannot be numbered. Give them ids with --ids. Nothing "
            "was imported."
        )
    for row in rows:
        if row.id in ids:
            raise IndexingError(f"The index already holds an image {row.id}. --ids none numbers the new rows instead.")
        if (row.root, row.path) in places:
            raise IndexingError(f"The index already holds {(row.path or b'').decode('utf-8', 'replace')!r}.")


def _root(writer: IndexWriter, folder: Path) -> tuple[int, list[ImageFolder]]:
    """Return the id of an image folder, and the record to add if it is new."""
    recorded = writer.roots()
    known = [Path(os.fsdecode(path)) for _, path, _ in recorded]
    root = next(root for root in assign_roots(recorded, [*known, folder]) if root.folder == folder)
    return root.id, [] if folder in known else [(root.id, bytes(folder), root.name)]


# -- rows and their pictures ------------------------------------------------------------------------------------------


def _rows(table: FeatureTable, folder: Path | None, root: int | None) -> list[ImageRow]:
    count = len(table)
    ids: Sequence[int | None] = table.ids.tolist() if table.ids is not None else [None] * count
    labels = table.labels if table.labels is not None else [()] * count
    if folder is not None and table.paths is None:
        raise IndexingError("There is no column of paths, which is needed to find the pictures. Name it with --paths.")
    rows: list[ImageRow] = []
    seen: set[bytes] = set()
    for id_, path, row_labels in zip(ids, table.paths or [None] * count, labels, strict=True):
        if path is None:
            rows.append(ImageRow(id_, None, None, row_labels))
        elif folder is None:
            rows.append(ImageRow(id_, None, path.encode("utf-8", "surrogateescape"), row_labels))
        else:
            inside = _path_inside(folder, path)
            if inside in seen:
                raise IndexingError(f"Row {len(rows) + 1} has the path {path!r} of an earlier row.")
            seen.add(inside)
            rows.append(ImageRow(id_, root, inside, row_labels))
    return rows


def _path_inside(folder: Path, path: str) -> bytes:
    """Return a path as stored in the catalog: relative to the image folder, ``/``-separated.

    IndexingError if it leads out of the folder, because only files inside may be served to browsers.
    """
    if "\0" in path:
        raise IndexingError(f"{path!r} is not the path of a file.")
    inside = os.path.normpath(os.path.relpath(path, folder) if os.path.isabs(path) else path)  # noqa: PTH117
    if inside in {os.curdir, os.pardir} or inside.startswith(os.pardir + os.sep):
        raise IndexingError(
            f"The path {path!r} leads out of the image folder {folder}. Name the folder that holds all pictures with "
            "--images."
        )
    return os.fsencode(inside)


def _with_pictures(rows: list[ImageRow], folder: Path, progress: Progress) -> list[ImageRow]:
    """Add the size, colour and content hash of each picture that can be read."""
    with ThreadPoolExecutor(processors(), thread_name_prefix="picture") as pool:
        rows = list(pool.map(lambda row: _with_picture(row, folder), rows))
    absent = sum(row.path is not None and row.width is None for row in rows)
    if absent:
        progress.say(
            f"{absent} of {len(rows)} pictures are not in {folder} or cannot be read. Their features are imported."
        )
    return rows


def _with_picture(row: ImageRow, folder: Path) -> ImageRow:
    if row.path is None or row.root is None:
        return row
    candidate = Candidate(row.root, row.path, bytes(folder) + b"/" + row.path, None, ())
    reading = read(candidate, partial(decode, at_least=_COLOUR_SIZE), ())
    if reading.picture is None or reading.state is None:
        return row
    picture = reading.picture
    return replace(
        row,
        content_hash=reading.content_hash,
        state=replace(reading.state, settled=False),
        width=picture.width,
        height=picture.height,
        colour=picture.colour,
        format=picture.format,
    )


# -- features -------------------------------------------------------------------------------------------------------


def _check_numbers(table: FeatureTable, file: Path, progress: Progress) -> bool:
    """Return whether all rows have length 1; IndexingError for NaN, infinity and numbers too large for float32."""
    unit, rounded = True, False
    for part, block in table.blocks():
        original = table.features[part]
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            finite = np.isfinite(original[bad[0]]).all()
            what = "a number too large for float32" if finite else "NaN or infinity"
            row = part.start + bad[0] + 1
            raise IndexingError(
                f"Row {row} of {file} holds {what}, so it has no distance to anything. Nothing was imported."
            )
        norms = np.einsum("ij,ij->i", block, block, dtype=np.float64)
        unit = unit and bool((np.abs(norms - 1.0) < _UNIT_TOLERANCE).all())
        rounded = rounded or (original.dtype != np.float32 and bool((block != original).any()))
    if rounded:
        progress.say(f"The numbers in {file} ({table.features.dtype}) were rounded to float32.")
    return unit


def _normalized_blocks(table: FeatureTable, normalize: str, progress: Progress) -> Iterator[NDArray[np.float32]]:
    for _, block in table.blocks():
        yield normalized(block, normalize)
        progress.advance(len(block))
