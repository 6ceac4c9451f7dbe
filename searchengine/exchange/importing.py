"""A file of ready-made features -> an index. No model is needed, and none can be asked for later."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexingError, IndexNotFoundError
from searchengine.exchange import pictures
from searchengine.exchange.reading import read_features
from searchengine.exchange.table import Columns, FeatureTable
from searchengine.extractors.names import check_name
from searchengine.extractors.pixels import normalized
from searchengine.extractors.spec import IMPORTED, NORMALIZATIONS, ExtractorSpec
from searchengine.index import entries, lock, metrics, swapping
from searchengine.index.catalog import now
from searchengine.index.changes import ReadyRow
from searchengine.index.features import matrices
from searchengine.index.writer import IndexWriter
from searchengine.indexing.scan import check_folder
from searchengine.progress import QUIET, Progress

_BLOCK_BYTES = 32 * 2**20
_LENGTH_ONE = 1e-4  # how far a squared length may be from 1; that of float16 vectors is off by less


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How features are taken in.

    ``normalize``: "none" keeps every number as it is, "l2" brings each row to length 1. ``images``: the folder that
    the paths are relative to, if the pictures are at hand. ``name`` says for people what the features are.
    ``append``: add to an index that was imported before. ``metric`` None: as the index was made, be it this one or the
    one that the file was exported from; else Euclidean.
    """

    columns: Columns = field(default_factory=Columns)
    metric: str | None = None
    normalize: str = "none"
    images: Path | None = None
    name: str | None = None
    append: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of it; ``pictures``: rows with a picture to show; ``left_out``: columns that were not used."""

    added: int
    dimension: int
    images: int
    labelled: int
    pictures: int
    normalized: bool
    left_out: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def imported_spec(*, unit: bool) -> ExtractorSpec:
    """What stands in the manifest in place of an extractor; ``unit``: the features have length 1."""
    return ExtractorSpec(
        model=IMPORTED,
        layer=None,
        pooling="none",
        normalize="l2" if unit else "none",
        weights="none",
        input_size=(0, 0),
        full_decode=True,
    )


def import_features(
    file: Path, index_dir: Path, options: ImportOptions | None = None, progress: Progress | None = None
) -> Imported:
    """Make an index of the features in a file; all of them or, if anything is wrong, none.

    Raises:
        IndexingError: the file is no such file, holds NaN, infinity, ragged rows or ids twice; an index is there
            already, be it one of photos that holds none any more; the disk is full.
        UnknownNameError: no such metric or normalisation.
        IndexLockedError: another run is writing to the index.
    """
    options, progress = options or ImportOptions(), progress or QUIET
    started = time.monotonic()
    if options.metric is not None:
        metrics.check_metric(options.metric)
    check_name("normalisation", options.normalize, NORMALIZATIONS)
    if options.images is not None:
        check_folder(options.images.expanduser().absolute())
    with lock.writing(index_dir, now()):
        writer = _existing(index_dir, options)  # a wrong folder is told before a long file is read
        try:
            table = read_features(file, options.columns)
            unit = _checked(table.features, file, progress) or options.normalize == "l2"
            metric = options.metric or table.metric or metrics.EUCLIDEAN
            manifest, dimension = _manifest(file, options, unit, metric), table.features.shape[1]
            fresh = writer is None
            if writer is None:
                writer = IndexWriter.create(index_dir, manifest, dimension=dimension)
            elif not _images(writer):
                writer = _anew(writer, manifest, dimension)
            try:
                done = _fill(writer, table, options, unit, progress, started)
                writer.back_up()
                return done
            except BaseException:
                writer.close()
                if fresh:
                    _remove(index_dir)
                raise
        finally:
            if writer is not None:
                writer.close()


def _fill(
    writer: IndexWriter, table: FeatureTable, options: ImportOptions, unit: bool, progress: Progress, started: float
) -> Imported:
    spec = imported_spec(unit=unit)
    dimension = table.features.shape[1]
    if writer.dimension != dimension or writer.catalog.need("fingerprint") != spec.fingerprint:
        raise IndexingError(
            f"The index in {writer.folder} holds features of {writer.dimension} numbers "
            f"({writer.catalog.need('extractor')}), and these have {dimension} ({spec.title}). Choose another "
            "--index-dir."
        )
    folder = None if options.images is None else options.images.expanduser().absolute()
    root, roots = (None, []) if folder is None else _root(writer, folder)
    rows = _rows(table, folder, root, progress)
    _check_free(writer, rows)
    progress.start(len(rows), 0)
    writer.commit_ready(_blocks(table.features, options.normalize, progress), rows, roots)
    if options.metric is not None:
        writer.set({"metric": options.metric})
    return Imported(
        added=len(rows),
        dimension=dimension,
        images=_images(writer),
        labelled=sum(bool(row.labels) for row in rows),
        pictures=sum(row.width is not None for row in rows),
        normalized=unit,
        left_out=table.left_out,
        seconds=round(time.monotonic() - started, 3),
    )


# -- the index ------------------------------------------------------------------------------------------------------


def _existing(folder: Path, options: ImportOptions) -> IndexWriter | None:
    """The index that is there already, if features may be put into it; None if there is none."""
    try:
        writer = IndexWriter.open(folder)
    except IndexNotFoundError:
        return None
    try:
        images = _images(writer)
        spec = ExtractorSpec.from_json(writer.catalog.need("spec"))
        there = f"There is an index of {images} images in {folder} already ({writer.catalog.need('extractor')}):"
        if spec.model != IMPORTED:  # it may be empty for now, and yet it knows its folders and which ids are taken
            raise IndexingError(
                f"{there} features are not imported into an index of photos. Choose another --index-dir."
            )
        if images and not options.append:
            raise IndexingError(f"{there} give --append to add to it, or choose another --index-dir.")
    except BaseException:
        writer.close()
        raise
    return writer


def _images(writer: IndexWriter) -> int:
    return int(writer.catalog.execute("SELECT count(*) FROM images").fetchone()[0])


def _manifest(file: Path, options: ImportOptions, unit: bool, metric: str) -> dict[str, str]:
    spec = imported_spec(unit=unit)
    what = options.name or file.name
    return {
        "spec": spec.to_json(),
        "fingerprint": spec.fingerprint,
        "extractor": f"Imported features ({what}), {'L2-normalised' if unit else 'not normalised'}",
        "weights_file": "",
        "precision": "float32",
        "runtime": "none",
        "device": "none",
        "metric": metric,
        "labels": "none",
    }


def _anew(writer: IndexWriter, manifest: dict[str, str], dimension: int) -> IndexWriter:
    """An imported index that holds no image, for features of whatever kind; ids that were given stay taken."""
    edits = writer.catalog.need_number("edits") + 1  # or a reader would take it for what it has seen
    file = swapping.next_name(writer.catalog.need("features_file"))
    own = {"dimension": str(dimension), "rows": "0", "edits": str(edits), "features_file": file}
    writer.set({**manifest, **own})
    writer.close()
    return IndexWriter.open(writer.folder)


def _remove(folder: Path) -> None:
    for file in [*folder.glob("catalog.sqlite*"), *matrices(folder)]:
        file.unlink(missing_ok=True)


# -- rows -----------------------------------------------------------------------------------------------------------


def _rows(table: FeatureTable, folder: Path | None, root: int | None, progress: Progress) -> list[ReadyRow]:
    count = len(table.features)
    paths: Sequence[str | None] = table.paths if table.paths is not None else [None] * count
    labels = table.labels if table.labels is not None else [()] * count
    ids: Sequence[int | None] = table.ids.tolist() if table.ids is not None else [None] * count
    if folder is None:
        return [
            ReadyRow(id_, None, None if path is None else path.encode("utf-8", "surrogateescape"), label)
            for id_, path, label in zip(ids, paths, labels, strict=True)
        ]
    if table.paths is None:
        raise IndexingError("There is no column of paths to find the pictures by. Name it with --paths.")
    inside = [None if path is None else pictures.relative_to(folder, path) for path in paths]
    _check_once(inside)
    base = bytes(folder)
    seen = list(pictures.look([None if path is None else base + b"/" + path for path in inside]))
    absent = sum(one is None and path is not None for one, path in zip(seen, inside, strict=True))
    if absent:
        progress.say(f"{absent} of {count} pictures are not in {folder}, or cannot be read; their features count.")
    rows = []
    for id_, path, label, one in zip(ids, inside, labels, seen, strict=True):
        place = None if path is None else root
        if one is None:
            rows.append(ReadyRow(id_, place, path, label))
        else:
            known = (one.content_hash, one.state, one.width, one.height, one.colour, one.format)
            rows.append(ReadyRow(id_, place, path, label, *known))
    return rows


def _root(writer: IndexWriter, folder: Path) -> tuple[int, list[tuple[int, bytes, str]]]:
    """The id of the image folder; and what is to be noted of it, if it is new."""
    recorded = writer.roots()
    for id_, path, _ in recorded:
        if path == bytes(folder):
            return id_, []
    id_ = max((id_ for id_, _, _ in recorded), default=0) + 1
    taken = {name for _, _, name in recorded}
    name = folder.name or "images"
    return id_, [(id_, bytes(folder), name if name not in taken else f"{name}-{id_}")]


def _check_once(paths: Sequence[bytes | None]) -> None:
    seen: set[bytes] = set()
    for row, path in enumerate(paths):
        if path is not None and path in seen:
            raise IndexingError(
                f"Row {row + 1} has the path {path.decode('utf-8', 'replace')!r}, as one before it has."
            )
        if path is not None:
            seen.add(path)


def _check_free(writer: IndexWriter, rows: Sequence[ReadyRow]) -> None:
    """What is added must not be there yet."""
    ids = {id_ for (id_,) in writer.catalog.execute("SELECT id FROM images")}
    places = set(writer.catalog.execute("SELECT root, path FROM images WHERE root IS NOT NULL")) if ids else set()
    first, numbered = entries.next_id(writer.catalog), sum(row.id is None for row in rows)
    if numbered and first + numbered > 2**63:
        raise IndexingError(
            f"The index has ids up to {first - 1}, so no more rows can be numbered. Give them ids of their own with "
            "--ids. Nothing was imported."
        )
    for row in rows:
        if row.id in ids:
            raise IndexingError(f"The index holds an image {row.id} already. --ids none numbers the new rows instead.")
        if (row.root, row.path) in places:
            raise IndexingError(f"The index holds {(row.path or b'').decode('utf-8', 'replace')!r} already.")


# -- features -------------------------------------------------------------------------------------------------------


def _checked(features: NDArray[Any], file: Path, progress: Progress) -> bool:
    """IndexingError for NaN, infinity and what float32 cannot hold; returns whether all rows have length 1."""
    unit, rounded = True, False
    for start, block in _float32(features):
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            row = start + int(bad[0])
            what = "a number too large for float32" if np.isfinite(features[row]).all() else "NaN or infinity"
            raise IndexingError(
                f"Row {row + 1} of {file} holds {what}, so nothing can be near it. Nothing was imported."
            )
        norms = np.einsum("ij,ij->i", block, block, dtype=np.float64)
        unit = unit and bool((np.abs(norms - 1.0) < _LENGTH_ONE).all())
        if features.dtype != np.float32 and not rounded:
            rounded = bool((block != features[start : start + len(block)]).any())
    if rounded:
        progress.say(f"The numbers in {file} ({features.dtype}) were rounded to float32.")
    return unit


def _blocks(features: NDArray[Any], normalize: str, progress: Progress) -> Iterator[NDArray[np.float32]]:
    for _, block in _float32(features):
        yield normalized(block, normalize)
        progress.advance(len(block))


def _float32(features: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(n, d) of any real type -> blocks of (b, d) float32, each with the number of its first row."""
    step = max(1, _BLOCK_BYTES // (4 * features.shape[1]))
    for start in range(0, len(features), step):
        with np.errstate(over="ignore"):
            yield start, np.asarray(features[start : start + step]).astype(np.float32)
