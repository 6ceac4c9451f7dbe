"""The exceptions of the package, all derived from ``SearchEngineError``.

::

    SearchEngineError
    ├── ImageError                 an image cannot be used
    │   ├── NotAnImageError        it is not an image in a supported format
    │   ├── DamagedImageError      it is truncated or corrupt
    │   ├── ImageTooLargeError     it has more pixels or bytes than allowed
    │   ├── DecodingKilledError    the process that decoded it was killed
    │   └── FileGoneError          its file is no longer where it was indexed
    ├── DecoderUnavailableError    no process can be started to decode images
    ├── QueryError                 a query is not valid: k, id, shape, NaN
    │   └── UnknownImageError      the index has no image with this id
    ├── IndexError_                an index cannot be used
    │   ├── IndexNotFoundError     the folder has no index
    │   ├── IndexVersionError      it has another version of the format
    │   ├── IndexDamagedError      its files contradict each other
    │   ├── IndexLockedError       another run is writing to it
    │   ├── IndexUnavailableError  its server does not answer
    │   └── ExtractorMismatchError it was made by another extractor
    ├── IndexingError              a run cannot continue: folder missing, too many images gone, disk full
    ├── LearningError              nothing can be learnt: no labels, or a single class
    ├── UnknownNameError           a model, layer, metric, ... is not known
    ├── MissingPackageError        an optional package is not installed
    └── ExtractorError             a model cannot be built or run
        └── WeightsNotFoundError   its weights are missing

An exception that only one module raises is defined there: SettingsError (``settings``), DownloadError and
NotOnServerError (``download``), BadArchiveError (``exchange.collections``), OutputError (``cli.output``) and
RequestError (``web.requests``).

Each message is written for the person who runs the program: it says what happened, and what to do next.
"""

from __future__ import annotations

import difflib
import importlib
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def missing_package(error: ModuleNotFoundError) -> str:
    """Return a message for a Python without the required packages, with the command that makes them available.

    Raises ``error`` again if the missing module is part of this package.
    """
    name = (error.name or "").partition(".")[0]
    if name in ("", "searchengine"):
        raise error
    environment = Path(__file__).resolve().parent.parent / ".venv"
    if environment == Path(sys.prefix) or not environment.parent.joinpath("Makefile").exists():
        remedy = "Install it: make install" if environment == Path(sys.prefix) else f"Install it: pip install {name}"
    elif (environment / "bin" / "activate").exists():
        remedy = f"Activate the environment that has it: source {environment}/bin/activate"
    else:
        remedy = f"Create and activate an environment: make install && source {environment}/bin/activate"
    return f"The package {name} is missing from this Python ({sys.executable}). {remedy}"


class SearchEngineError(Exception):
    """Base class of all exceptions of this package."""


class ImageError(SearchEngineError):
    """An image cannot be used."""


class NotAnImageError(ImageError):
    """The bytes are not an image in a format that can be read."""


class DamagedImageError(ImageError):
    """It starts like an image, but is cut short or broken."""


class ImageTooLargeError(ImageError):
    """More pixels or bytes than allowed."""


class DecodingKilledError(ImageError):
    """The process that decoded the image was killed from outside; the image need not be at fault."""


class FileGoneError(ImageError):
    """The image is in the index, but its file is no longer where it was."""


class DecoderUnavailableError(SearchEngineError):
    """No process can be started to decode images. It is not an ImageError, as the image is not at fault."""


class QueryError(SearchEngineError):
    """A query is not valid."""


class UnknownImageError(QueryError):
    """The index has no image with this id."""


class IndexError_(SearchEngineError):  # noqa: N801, N818  (IndexError is Python's own)
    """An index cannot be used."""


class IndexNotFoundError(IndexError_):
    """The folder has no index."""


class IndexVersionError(IndexError_):
    """The index has another version of the format."""


class IndexDamagedError(IndexError_):
    """The files of the index contradict each other."""


class IndexLockedError(IndexError_):
    """Another run is writing to the index."""


class IndexUnavailableError(IndexError_):
    """The server of the index does not answer, or not in time."""


class ExtractorMismatchError(IndexError_):
    """The index was made by another extractor."""


class IndexingError(SearchEngineError):
    """An indexing run cannot continue."""


class LearningError(SearchEngineError):
    """Nothing can be learnt from the given data."""


class UnknownNameError(SearchEngineError):
    """There is no model, layer, metric or option with this name."""


class MissingPackageError(SearchEngineError):
    """An optional package is not installed."""


class ExtractorError(SearchEngineError):
    """A model cannot be built or run."""


class WeightsNotFoundError(ExtractorError):
    """The weights are missing and cannot be downloaded."""


def missing_extra(package: str, extra: str) -> MissingPackageError:
    """Return the error for a missing optional package, with the command that installs it."""
    return MissingPackageError(
        f"This needs {package}, which is not installed. Install it with: pip install 'searchengine[{extra}]'"
    )


def import_extra(module: str, package: str, extra: str) -> Any:
    """Import a module of an optional package; MissingPackageError if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_extra(package, extra) from error


def with_index_dir(command: str, place: object) -> str:
    """Return a command for a shell, with the folder or address of an index added."""
    return f"{command} --index-dir {shlex.quote(str(place))}"


def file_error(error: OSError) -> str:
    """Return a message about a file that cannot be used."""
    file = "A file" if error.filename is None else os.fsdecode(error.filename)
    return f"{file} cannot be used: {error.strerror or error}. Check its permissions and the disk, and try again."


def closest_first(name: str, known: Iterable[str]) -> list[str]:
    """Return all known names, those most similar to ``name`` first; ties keep their order."""

    def similarity(other: str) -> float:
        return difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()

    return sorted(known, key=similarity, reverse=True)


def check_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return ``name`` if it is known; otherwise raise UnknownNameError, listing the known names, closest first."""
    names = list(known)
    if name in names:
        return name
    raise UnknownNameError(f"There is no {kind} {name!r}. Choose one of: {', '.join(closest_first(name, names))}.")
