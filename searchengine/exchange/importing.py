"""A file of ready-made features -> an index, which has no model: it is searched by id or by vector."""

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
from searchengine.index.types import ImageRow
from searchengine.index.writer import IndexWriter
from searchengine.indexing.reading import read
from searchengine.indexing.roots import assign_roots, check_folder
from searchengine.indexing.scan import Candidate
from searchengine.processors import processors
from searchengine.progress import QUIET, Progress

_UNIT_TOLERANCE = 1e-4  # of a squared length; that of float16 vectors of length 1 differs by less
_COLOUR_SIZE = (32, 32)  # pixels, enough for an average colour; a JPEG is decoded at a reduced scale


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import features.

    Attributes:
        columns: which column of the file holds what.
        metric: None: that of the index, or of the one that the file was exported from; else Euclidean.
        normalize: "none" keeps every number as it is, "l2" brings each row to length 1.
        images: the folder that the paths are relative to, if the pictures are at hand.
        name: says for people what the features are.
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
    """The result of an import. ``pictures``: rows with a picture to show; ``left_out``: columns that were not used."""

    added: int
    dimension: int
    images: int
    labelled: int
    pictures: int
    normalized: bool
    left_out: tuple[str, ...]
    seconds: float


def imported_spec(*, unit: bool) -> ExtractorSpec:
    """The entry in place of an extractor; ``unit``: the features have length 1."""
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
    """Make an index of the features in a file; all of them or, if anything is wrong, none.

    Raises:
        IndexingError: the file is not a file of features, or holds NaN, infinity, ragged rows or an id twice; there is
            an index already, even one of photos that holds none at present; the disk is full.
        UnknownNameError: no such metric or normalisation.
        IndexLockedError: another run is writing to the index.
    """
    options = options or ImportOptions()
    started = time.monotonic()
    if options.metric is not None:
        metrics.check_metric(options.metric)
    check_name("normalisation", options.normalize, NORMALIZATIONS)
    if options.images is not None:
        check_folder(options.images.expanduser().absolute())
    with storage_of(index_dir).writing(timestamp()), ExitStack() as stack:
        writer = _open_existing(index_dir, options)  # refuses a wrong folder before a long file is read
        if writer is not None:
            stack.enter_context(writer)
        table = read_features(file, options.columns)
        dimension = table.dimension
        unit = _check_numbers(table, file, progress) or options.normalize == "l2"
        manifest = _manifest(options.name or file.name, unit, options.metric or table.metric or metrics.EUCLIDEAN)
        if writer is None:
            writer = stack.enter_context(_new_index(index_dir, manifest, dimension))
        elif not writer.catalog.count():
            writer.empty(manifest, dimension)
        _check_same_kind(writer, dimension, unit)
        rows = _add(writer, table, options, progress)
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


def _add(writer: IndexWriter, table: FeatureTable, options: ImportOptions, progress: Progress) -> list[ImageRow]:
    folder = None if options.images is None else options.images.expanduser().absolute()
    root, new_roots = (None, []) if folder is None else _root(writer, folder)
    rows = _rows(table, folder, root)
    if folder is not None:
        rows = _with_pictures(rows, folder, progress)
    _check_free(writer, rows)
    progress.start(len(rows))
    writer.commit_ready(_normalized_blocks(table, options.normalize, progress), rows, new_roots)
    if options.metric is not None:
        writer.set({"metric": options.metric})
    return rows


# -- the index ------------------------------------------------------------------------------------------------------


def _open_existing(folder: Path, options: ImportOptions) -> IndexWriter | None:
    """The index in a folder, if features may be put into it; None if there is none."""
    try:
        writer = IndexWriter.open(folder)
    except IndexNotFoundError:
        return None
    try:
        images = writer.catalog.count()
        spec = ExtractorSpec.from_json(writer.catalog.need("spec"))
        extractor = writer.catalog.need("extractor")
        existing = f"There is an index of {images} images in {folder} already ({extractor}):"
        if not spec.is_imported:  # even if it is empty now, it keeps its folders and the ids it has given
            raise IndexingError(
                f"{existing} features are not imported into an index of photos. Choose another --index-dir."
            )
        if images and not options.append:
            raise IndexingError(f"{existing} give --append to add to it, or choose another --index-dir.")
    except BaseException:
        writer.close()
        raise
    return writer


@contextmanager
def _new_index(folder: Path, manifest: dict[str, str], dimension: int) -> Iterator[IndexWriter]:
    """A new index, which is removed if the block ends with an error."""
    try:
        with IndexWriter.create(folder, manifest, dimension=dimension) as writer:
            yield writer
    except BaseException:
        for file in [*folder.glob("catalog.sqlite*"), *matrices(folder)]:
            file.unlink(missing_ok=True)
        raise


def _manifest(name: str, unit: bool, metric: str) -> dict[str, str]:
    spec = imported_spec(unit=unit)
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


def _check_same_kind(writer: IndexWriter, dimension: int, unit: bool) -> None:
    spec = imported_spec(unit=unit)
    if writer.dimension != dimension or writer.catalog.need("fingerprint") != spec.fingerprint:
        raise IndexingError(
            f"The index in {writer.folder} holds features of {writer.dimension} numbers "
            f"({writer.catalog.need('extractor')}), and these have {dimension} ({spec.title}). Choose another "
            "--index-dir."
        )


def _check_free(writer: IndexWriter, rows: Sequence[ImageRow]) -> None:
    """IndexingError if an id or a path of the rows is in the index already, or there are no ids left."""
    ids = writer.catalog.ids()
    places = writer.catalog.places()
    first, unnumbered = writer.catalog.last_id() + 1, sum(row.id is None for row in rows)
    if unnumbered and first + unnumbered > 2**63:
        raise IndexingError(
            f"The index has ids up to {first - 1}, so no more rows can be numbered. Give them ids with --ids. Nothing "
            "was imported."
        )
    for row in rows:
        if row.id in ids:
            raise IndexingError(f"The index holds an image {row.id} already. --ids none numbers the new rows instead.")
        if (row.root, row.path) in places:
            raise IndexingError(f"The index holds {(row.path or b'').decode('utf-8', 'replace')!r} already.")


def _root(writer: IndexWriter, folder: Path) -> tuple[int, list[tuple[int, bytes, str]]]:
    """The id of an image folder, and what to record of it if it is new."""
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
        raise IndexingError("There is no column of paths to find the pictures by. Name it with --paths.")
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
                raise IndexingError(f"Row {len(rows) + 1} has the path {path!r}, as one before it has.")
            seen.add(inside)
            rows.append(ImageRow(id_, root, inside, row_labels))
    return rows


def _path_inside(folder: Path, path: str) -> bytes:
    """A path as the catalog has it: relative to the image folder, ``/``-separated.

    IndexingError if it leads out of the folder: what is served to browsers lies inside.
    """
    if "\0" in path:
        raise IndexingError(f"{path!r} is not the path of a file.")
    inside = os.path.normpath(os.path.relpath(path, folder) if os.path.isabs(path) else path)  # noqa: PTH117
    if inside in {os.curdir, os.pardir} or inside.startswith(os.pardir + os.sep):
        raise IndexingError(
            f"The path {path!r} leads out of the image folder {folder}. Give the folder that holds all pictures with "
            "--images."
        )
    return os.fsencode(inside)


def _with_pictures(rows: Sequence[ImageRow], folder: Path, progress: Progress) -> list[ImageRow]:
    """Add to each row the size, colour and content of its picture, where it can be read."""
    with ThreadPoolExecutor(processors(), thread_name_prefix="look") as pool:
        seen = list(pool.map(lambda row: _with_picture(row, folder), rows))
    absent = sum(row.path is not None and row.width is None for row in seen)
    if absent:
        progress.say(
            f"{absent} of {len(rows)} pictures are not in {folder}, or cannot be read; their features are imported."
        )
    return seen


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
    """Whether all rows have length 1; IndexingError for NaN, infinity and what float32 cannot hold."""
    unit, rounded = True, False
    for part, block in table.blocks():
        original = table.features[part]
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            finite = np.isfinite(original[bad[0]]).all()
            what = "a number too large for float32" if finite else "NaN or infinity"
            row = part.start + bad[0] + 1
            raise IndexingError(f"Row {row} of {file} holds {what}, so nothing can be near it. Nothing was imported.")
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
