"""A fitted classifier lives in the index folder: a sheet of JSON, and an .npz of plain arrays that it names.

``classifier.json`` says which ``classifier-<digits>.npz`` counts, and its SHA-256. The arrays are written first, then
the sheet takes the place of the old one in one step: a reader finds the old classifier or the new one. Nothing is ever
unpickled, and what is read is checked against what the sheet and the index say.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import threading
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorMismatchError, IndexDamagedError, SearchEngineError
from searchengine.files import output_file
from searchengine.index.local import LocalIndex
from searchengine.learn.classifiers import Classifier
from searchengine.learn.scores import ClassScore, Confusion, FitReport, HeldOut
from searchengine.learn.training_set import labels_version

SHEET = "classifier.json"
_FORMAT = 1
_NAME = re.compile(r"classifier-[0-9a-f]{16}\.npz")
_ARRAYS = ("coefficients", "intercepts", "mean", "scale", "classes")
_MOST_BYTES = 2**31


def save_classifier(index: LocalIndex, classifier: Classifier) -> None:
    """Keep a classifier with its index; IndexingError where the folder cannot be written to."""
    out = io.BytesIO()
    np.savez(
        out,
        coefficients=classifier.coefficients,
        intercepts=classifier.intercepts,
        mean=classifier.mean,
        scale=classifier.scale,
        classes=np.array(classifier.classes, dtype=np.str_),
    )
    digest = hashlib.sha256(out.getvalue()).hexdigest()
    file = index.folder / f"classifier-{digest[:16]}.npz"
    sheet = {
        "format": _FORMAT,
        "file": file.name,
        "sha256": digest,
        "fingerprint": classifier.fingerprint,
        "version": classifier.version,
        "report": dataclasses.asdict(classifier.report),
    }
    with output_file(file, leftovers="classifier-*.npz") as part:
        part.write_bytes(out.getvalue())
    with output_file(index.folder / SHEET) as part:
        part.write_text(json.dumps(sheet, ensure_ascii=False), encoding="utf-8")
    for old in index.folder.glob("classifier-*.npz"):
        if _NAME.fullmatch(old.name) and old != file:
            with suppress(OSError):
                old.unlink()


def load_classifier(index: LocalIndex) -> Classifier | None:
    """The classifier that lives with an index, or None; ``stale`` if images or labels have changed since.

    Raises:
        ExtractorMismatchError: it was fitted on features of another extractor.
        IndexDamagedError: its files are damaged, or something else than a classifier.
    """
    path = index.folder / SHEET
    read = _read(path)
    if read is None:
        return None
    sheet, data = read
    fingerprint = index.fingerprint
    if sheet["fingerprint"] != fingerprint:
        raise ExtractorMismatchError(
            f"The classifier in {index.folder} was fitted on features of another extractor than those of the index "
            f"now. Fit it again with: searchengine classify --fit --index-dir {index.folder}"
        )
    if hashlib.sha256(data).hexdigest() != sheet["sha256"]:
        raise _damaged(path, "the arrays are not those that were written")
    arrays = _arrays(path, data)
    classes = tuple(arrays.pop("classes").tolist())
    expected = {
        "coefficients": (len(classes), index.dimension),
        "intercepts": (len(classes),),
        "mean": (index.dimension,),
        "scale": (index.dimension,),
    }
    for name, shape in expected.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
            raise _damaged(path, f"{name} should be {shape} finite float64 numbers")
    if len(classes) < 2 or len(set(classes)) < len(classes) or not (arrays["scale"] > 0).all():
        raise _damaged(path, "its classes or its scale make no sense")
    version = str(sheet["version"])
    return Classifier(
        classes=classes,
        **arrays,
        fingerprint=fingerprint,
        version=version,
        report=_report(path, sheet.get("report")),
        stale=version != labels_version(index),
    )


class LatestClassifier:
    """The classifier of an index as it stands now, read again only when it or the index has changed: for a server.

    Whether it is stale takes a look at all labels. That is done beside the answers, which go on with what was known
    until then: while an index grows there is a new state every second. Safe to share between threads.
    """

    def __init__(self, index: LocalIndex) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._kept: tuple[_Seen, Classifier | None] | None = None
        self._looking: threading.Thread | None = None

    def get(self) -> Classifier | None:
        """What ``load_classifier`` gives, and the same errors."""
        seen = self._seen()
        if seen is None:
            return None
        with self._lock:
            if self._kept is None or self._kept[0].file != seen.file:
                self._kept = (seen, load_classifier(self._index))
            elif self._kept[0] != seen and (self._looking is None or not self._looking.is_alive()):
                self._looking = threading.Thread(target=self._look, args=(seen,), daemon=True, name="classifier")
                self._looking.start()
            return self._kept[1]

    def _look(self, seen: _Seen) -> None:
        try:
            found = load_classifier(self._index)
        except SearchEngineError:
            with self._lock:
                self._kept = None  # the next one who asks is told
            return
        with self._lock:
            if self._kept is not None and self._kept[0].file == seen.file:
                self._kept = (seen, found)

    def _seen(self) -> _Seen | None:
        try:
            stat = (self._index.folder / SHEET).stat()
        except OSError:
            return None
        state = self._index.state()
        # Of another extractor, nothing that is known still holds.
        return _Seen((state.fingerprint, stat.st_ino, stat.st_mtime_ns, stat.st_size), state.generation)


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """Which file was read, and when in the life of the index."""

    file: tuple[str, int, int, int]
    generation: int


def _read(path: Path) -> tuple[dict[str, Any], bytes] | None:
    """The sheet, and the bytes of the arrays that it names."""
    for attempt in range(3):
        try:
            sheet = _sheet(path)
            return None if sheet is None else (sheet, _arrays_file(path, sheet).read_bytes())
        except FileNotFoundError as error:
            if attempt == 2:  # else another process has just put a new one in place
                raise _damaged(path, "the arrays that it names are missing") from error
        except OSError as error:
            raise _damaged(path, f"it cannot be read: {error.strerror}") from error
    raise AssertionError("unreachable")


def _sheet(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        sheet = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is no JSON") from error
    words = ("file", "sha256", "fingerprint", "version")
    if not isinstance(sheet, dict) or not all(isinstance(sheet.get(word), str) for word in words):
        raise _damaged(path, "it is not the sheet of a classifier")
    if sheet.get("format") != _FORMAT:
        raise _damaged(path, f"it has the format {sheet.get('format')!r}, and this program reads {_FORMAT}")
    return sheet


def _arrays_file(path: Path, sheet: dict[str, Any]) -> Path:
    if not _NAME.fullmatch(sheet["file"]):  # no way out of the folder
        raise _damaged(path, f"it names {sheet['file']!r}")
    file = path.parent / str(sheet["file"])
    if file.stat().st_size > _MOST_BYTES:
        raise _damaged(path, "its arrays are too large to be true")
    return file


def _arrays(path: Path, data: bytes) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("compressed")  # never written so; a small file could swell to any size
        with np.load(io.BytesIO(data), allow_pickle=False) as opened:
            arrays = {name: np.asarray(opened[name]) for name in _ARRAYS}
    except (ValueError, KeyError, OSError, EOFError, MemoryError, OverflowError, zipfile.BadZipFile) as error:
        raise _damaged(path, "the arrays cannot be read") from error
    if arrays["classes"].ndim != 1 or arrays["classes"].dtype.kind != "U":
        raise _damaged(path, "its classes are no list of names")
    return arrays


def _report(path: Path, value: Any) -> FitReport:
    try:
        return FitReport(
            fitted=str(value["fitted"]),
            images=int(value["images"]),
            unlabelled=int(value["unlabelled"]),
            regularization=float(value["regularization"]),
            folds=int(value["folds"]),
            neighbours=int(value["neighbours"]),
            logistic=_scores(value["logistic"]),
            vote=_scores(value["vote"]),
            notes=tuple(str(note) for note in value["notes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "its report cannot be read") from error


def _scores(value: Any) -> HeldOut | None:
    if value is None:
        return None
    return HeldOut(
        images=int(value["images"]),
        accuracy=float(value["accuracy"]),
        low=float(value["low"]),
        high=float(value["high"]),
        calibration_error=float(value["calibration_error"]),
        brier=float(value["brier"]),
        by_class=tuple(ClassScore(str(c["label"]), int(c["images"]), int(c["right"])) for c in value["by_class"]),
        confused=tuple(Confusion(str(c["label"]), str(c["predicted"]), int(c["count"])) for c in value["confused"]),
    )


def _damaged(path: Path, what: str) -> IndexDamagedError:
    return IndexDamagedError(
        f"The classifier in {path} cannot be used: {what}. Fit it again with: "
        f"searchengine classify --fit --index-dir {path.parent}"
    )
