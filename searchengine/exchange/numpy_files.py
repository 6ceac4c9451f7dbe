"""NumPy files of features: an .npy of one array, an .npz of several. Nothing is unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.derived import UNREADABLE
from searchengine.errors import IndexingError
from searchengine.exchange.table import ALL_LABELS, ROLES, ColumnRoles, Columns, FeatureTable
from searchengine.progress import QUIET, Progress

_EXPORTED = {"id": "ids", "path": "paths", "label": "labels"}  # column -> array
_WORDS = ("extractor", "metric")  # in an export, one value each for all rows


def read_npy(file: Path, columns: Columns) -> FeatureTable:
    """Read one array of features, as a memory map; IndexingError."""
    if columns.features is not None:
        raise IndexingError(f"{file} holds a single array: leave out --features.")
    roles = ColumnRoles(file, columns, ())
    for role in ROLES:  # only separate files will do
        roles.find(role)
    return roles.table(_matrix(load_array(file), file), {})


def read_npz(file: Path, columns: Columns) -> FeatureTable:
    """Read an archive of arrays, of which one holds features, the others a value for each row; IndexingError."""
    try:
        # NumPy does not close a file that it has opened itself and that is not an archive
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            roles = ColumnRoles(file, columns, archive.files)
            name = roles.find("features") or _only_matrix(archive, file)
            roles.take(name)
            by_role = {role: column for role in ROLES if (column := roles.find(role)) is not None}
            if ALL_LABELS in archive.files:
                by_role[ALL_LABELS] = ALL_LABELS
            used = {name, *by_role.values()}
            metric = None
            if all(word in archive.files and word not in used and _is_text(archive[word]) for word in _WORDS):
                metric = str(archive["metric"])
                used |= set(_WORDS)
            return roles.table(
                _matrix(archive[name], file),
                {role: _column(archive[column], column) for role, column in by_role.items()},
                [other for other in archive.files if other not in used],
                metric,
            )
    except UNREADABLE as error:
        raise IndexingError(f"{file} is not an .npz archive of numbers and text: {_reason(error)}") from error


def load_array(file: Path) -> NDArray[Any]:
    """The array of an .npy file, as a memory map; IndexingError."""
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise IndexingError(f"{file} is not an .npy file of numbers, or is cut short: {_reason(error)}") from error
    return array


def _only_matrix(archive: Any, file: Path) -> str:
    matrices = [name for name in archive.files if archive[name].ndim == 2 and archive[name].dtype.kind in "fiu"]
    if len(matrices) != 1:
        arrays = ", ".join(f"{name} {archive[name].shape}" for name in archive.files) or "nothing"
        raise IndexingError(f"Say with --features which array of {file} holds the features. It has: {arrays}.")
    return str(matrices[0])


def _column(array: NDArray[Any], name: str) -> list[Any]:
    if array.ndim != 1:
        raise ValueError(f"the array {name!r} has the shape {array.shape}, but must have one value for each row.")
    return list(array.tolist())


def _is_text(array: NDArray[Any]) -> bool:
    return array.ndim == 0 and array.dtype.kind == "U"


def _matrix(features: NDArray[Any], file: Path) -> NDArray[Any]:
    """The array itself if it is (n, d); IndexingError."""
    if features.ndim == 2:
        return features
    advice = {
        0: "A single number is not a feature.",
        1: "If it is one feature, write features.reshape(1, -1).",
    }.get(features.ndim, "Reshape them first, e.g. features.reshape(len(features), -1).")
    raise IndexingError(
        f"The features in {file} have the shape {features.shape}, but must have two axes: rows, and the numbers of a "
        f"feature. {advice}"
    )


def _reason(error: Exception) -> str:
    text = str(error).rstrip(".")
    if "allow_pickle" in text or "Object arrays" in text:
        return "it is damaged, or holds Python objects, which are not loaded because loading them can run any program."
    return f"{text or type(error).__name__}."


def write_npz(file: Path, table: FeatureTable, progress: Progress = QUIET) -> None:
    """Write ``features``, ``ids``, ``paths`` and ``labels``, and the extractor and the metric in words.

    ``all_labels`` (JSON lists) is there if an image has several, and ``tags`` (JSON lists) if the index has any.
    """
    arrays = {
        _EXPORTED.get(name, name): np.array(values, dtype=np.int64 if name == "id" else np.str_)
        for name, values in table.columns().items()
    }
    arrays |= {"extractor": np.array(table.extractor), "metric": np.array(table.metric or "")}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(table), table.dimension)}
            np.lib.format.write_array_header_1_0(member, header)
            for _, block in table.blocks():
                member.write(np.ascontiguousarray(block, dtype="<f4").data)
                progress.advance(len(block))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
