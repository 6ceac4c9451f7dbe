"""Checks every page of an index's catalog and every row of its matrix, and names the command that repairs it."""

from __future__ import annotations

import os
import re
import shlex
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from searchengine.address import Address, MilvusAddress
from searchengine.errors import (
    ExtractorError,
    IndexDamagedError,
    IndexError_,
    IndexNotFoundError,
    IndexVersionError,
    SearchEngineError,
    with_index_dir,
)
from searchengine.extractors.spec import ExtractorSpec
from searchengine.index.catalog import BACKUP_NAME, Catalog
from searchengine.index.features import HEADER_BYTES, header, map_rows
from searchengine.index.metrics import METRICS
from searchengine.index.storage import storage_of
from searchengine.indexing.scan import joined
from searchengine.progress import QUIET, Progress

_CHUNK_ROWS = 4096
_NORM_TOLERANCE = 1e-6  # relative; ways to sum up the same squares differ by less
_SHAPE = re.compile(rb"'shape': \((\d{1,18}), ")

_DIFFERS = f"The catalog and its copy, {BACKUP_NAME}, differ: one of the two is damaged."


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a check.

    ``problems`` are sentences; ``repair`` is the command that repairs the index. ``missing_files`` are not damage.
    """

    images: int
    problems: tuple[str, ...]
    missing_files: int
    repair: str | None

    @property
    def sound(self) -> bool:
        """Whether the index can be trusted."""
        return not self.problems


def verify(folder: Path, progress: Progress = QUIET) -> Verification:
    """Check the index in a folder.

    Raises:
        IndexNotFoundError: there is no index in the folder.
        IndexingError: the index cannot be read.
    """
    try:
        catalog = Catalog.open(folder)
    except (IndexDamagedError, IndexVersionError) as error:
        return Verification(0, (str(error),), 0, repair_command(folder))
    try:
        for attempt in range(3):
            version = catalog.data_version
            verification = _verify(folder, catalog, progress)
            if verification.sound or attempt == 2 or version == catalog.data_version:
                break  # otherwise a run has replaced the matrix in the meantime
        return verification
    except IndexError_ as error:
        return Verification(0, (str(error),), 0, repair_command(folder))
    finally:
        catalog.close()


def _verify(folder: Path, catalog: Catalog, progress: Progress) -> Verification:
    images = missing = 0
    rebuild = True
    with catalog.snapshot():
        problems = [f"The catalog is damaged: {problem}." for problem in catalog.problems()]
        if not problems:
            problems += _check_catalog(catalog)
        if not problems:
            images, missing = catalog.count(), _missing_files(catalog)
            problems += _check_matrix(folder, catalog, progress)
        if not problems:
            problem = _check_copy(folder, catalog)
            if problem is not None:
                problems, rebuild = [problem], problem is _DIFFERS
    return Verification(images, tuple(problems), missing, repair_command(folder, rebuild=rebuild) if problems else None)


def _missing_files(catalog: Catalog) -> int:
    return sum(not os.path.exists(joined(root, path)) for _, root, path, _ in catalog.files())  # noqa: PTH110  (bytes)


def _check_catalog(catalog: Catalog) -> Iterator[str]:
    """Yield problems of entries that cannot have been written. Raises IndexDamagedError if one cannot be read."""
    for _ in catalog.everything():
        pass  # SQLite itself does not check whether text is valid
    for table, other in catalog.contradictions():
        yield f"The catalog contradicts itself: a row of {table} names none of {other}."
    impossible = catalog.impossible_images()
    if impossible:
        yield f"The catalog has impossible values for {len(impossible)} images (ids {_examples(impossible)})."
    try:
        spec = ExtractorSpec.from_json(catalog.need("spec"))
        recorded_as = (catalog.need("fingerprint"), catalog.need("normalized"))
        if (spec.fingerprint, str(int(spec.normalize == "l2"))) != recorded_as:
            yield "The catalog's fingerprint of the extractor does not match its description of the extractor."
    except ExtractorError as error:
        yield str(error)
    metric = catalog.get("metric")
    if metric is not None and metric not in METRICS:
        yield f"The catalog names the metric {metric!r}, which does not exist."


def _check_matrix(folder: Path, catalog: Catalog, progress: Progress) -> list[str]:
    """Return problems of the matrix: each row must exist, with its recorded CRC-32 and norm."""
    file = folder / catalog.need("features_file")
    rows, dimension = catalog.need_number("rows"), catalog.need_number("dimension")
    stored = catalog.checksums()
    if stored and not 0 <= stored[0][0] <= stored[-1][0] < rows:
        return ["The catalog refers to rows that the feature matrix does not have."]
    try:
        features = map_rows(file, rows, dimension)
    except IndexDamagedError as error:
        return [str(error)]
    problems = []
    if rows and not _header_fits(file, rows, dimension):
        problems.append(f"{file} does not begin like a feature matrix of {dimension} columns.")
    bad: list[int] = []
    progress.start(len(stored))
    for start in range(0, len(stored), _CHUNK_ROWS):
        at, checks, norms, ids = zip(*stored[start : start + _CHUNK_ROWS], strict=True)
        block = features[list(at)]  # n of the (r, d) rows -> (n, d), read once
        lengths = np.einsum("ij,ij->i", block, block, dtype=np.float64)
        off = np.abs(lengths - np.array(norms)) > _NORM_TOLERANCE * np.maximum(lengths, 1e-30)
        bad += [
            id_
            for id_, feature, check, far in zip(ids, block, checks, off.tolist(), strict=True)
            if far or zlib.crc32(feature.data) != check
        ]
        progress.advance(len(ids))
    if bad:
        problems.append(f"The features of {len(bad)} images are not those that were written (ids {_examples(bad)}).")
    return problems


def _header_fits(file: Path, rows: int, dimension: int) -> bool:
    """Return whether the header is sound. After a killed run it may name fewer rows than there are."""
    with file.open("rb") as opened:
        start = opened.read(HEADER_BYTES)
    shape = _SHAPE.search(start)
    return shape is not None and int(shape[1]) <= rows and start == header(int(shape[1]), dimension)


def _check_copy(folder: Path, catalog: Catalog) -> str | None:
    """Compare the catalog with its backup, and return a problem of the two, if any."""
    try:
        with closing(Catalog.open_backup(folder)) as copy:
            copy.check()
            if copy.revision != catalog.revision:
                return None  # a run is active, or was killed; or the backup is of an earlier index
            with closing(catalog.everything()) as rows, closing(copy.everything()) as others:
                if any(row != other for row, other in zip_longest(rows, others)):
                    return _DIFFERS
    except IndexNotFoundError:
        return None  # the first run writes it at its end
    except SearchEngineError:
        return f"{BACKUP_NAME}, the copy of the catalog, is damaged."
    return None


def _examples(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")


# -- repairing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recorded:
    """The choices an index was made with, which a rebuild keeps by default. None: unknown."""

    spec: ExtractorSpec
    weights_file: str  # or ""
    roots: tuple[bytes, ...]  # the image folders
    labels: str | None
    metric: str | None
    mounts: str | None = None


def recorded(place: Address) -> Recorded | None:
    """Read the choices from the catalog, whatever its format, or from its backup; None if neither can be read.

    Raises IndexUnavailableError if the server of the index does not answer.
    """
    if isinstance(place, MilvusAddress):
        with suppress(IndexNotFoundError), closing(storage_of(place).read()) as index:
            return _recorded(index.manifest, ())
        return None
    for opened in (Catalog.open, Catalog.open_backup):
        with suppress(SearchEngineError, TypeError), closing(opened(place, any_format=True)) as catalog:  # if damaged
            return _recorded(catalog.get, tuple(bytes(path) for _, path, _ in catalog.roots()))
    return None


def _recorded(manifest: Callable[[str], str | None], roots: tuple[bytes, ...]) -> Recorded:
    spec = ExtractorSpec.from_json(manifest("spec") or "")
    choices = (manifest(key) for key in ("labels", "metric", "mounts"))
    return Recorded(spec, manifest("weights_file") or "", roots, *choices)


def repair_command(folder: Path, *, rebuild: bool = True) -> str:
    """Return the command that repairs an index, quoted for a shell. The user fills in words in capitals."""
    known = recorded(folder)
    if known is not None and known.spec.is_imported:
        return with_index_dir("searchengine import FEATURES", folder.with_name(f"{folder.name}-2"))
    images = " ".join(map(_quoted, known.roots)) if known is not None and known.roots else "IMAGES"
    model = " --model MODEL" if known is None else "" if known.spec.embeds else " --model efficientnet-lite0"
    return f"{with_index_dir(f'searchengine index {images}', folder)}{model}{' --rebuild' if rebuild else ''}"


def _quoted(path: bytes) -> str:
    try:
        return shlex.quote(path.decode("utf-8"))
    except UnicodeDecodeError:  # bytes that no terminal shows, escaped for bash and zsh
        return "$'" + "".join(chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in path) + "'"
