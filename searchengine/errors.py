"""The exceptions that the package raises on purpose, all with one root.

::

    SearchEngineError
    ├── ImageError                 a single image cannot be used
    │   ├── NotAnImageError        not an image in a format that can be read
    │   ├── DamagedImageError      an image that is cut short or broken
    │   ├── ImageTooLargeError     more pixels or bytes than allowed
    │   ├── DecodingKilledError    its decoding was killed, for which it need not be at fault
    │   └── FileGoneError          an image of the index whose file is no longer where it was
    ├── DecoderUnavailableError    no process can be started to decode images
    ├── QueryError                 a request that cannot be answered: k, id, shape, NaN
    │   └── UnknownImageError      an id that is not in the index
    ├── IndexError_                the index as a whole
    │   ├── IndexNotFoundError     no index in that folder
    │   ├── IndexVersionError      written in another version of the format
    │   ├── IndexDamagedError      its files contradict each other
    │   ├── IndexLockedError       another run is writing to it
    │   ├── IndexUnavailableError  the server that holds it does not answer
    │   └── ExtractorMismatchError made by another extractor
    ├── IndexingError              a run cannot continue: folder missing, too much gone, disk full
    ├── LearningError              nothing can be learnt: no labels, a single class
    ├── UnknownNameError           no such model, layer, metric, ...
    ├── MissingPackageError        an optional package is not installed
    └── ExtractorError             a model cannot be built or run
        └── WeightsNotFoundError   the weights are missing

A module that alone raises an exception defines it, below the same root: SettingsError (``settings``), DownloadError
with NotOnServerError (``download``) and BadArchiveError (``exchange.collections``), OutputError (``cli.output``),
and RequestError (``web.queries``).

Each message is a sentence for the person who runs the program: what happened, and what to do next.
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
    """The sentence for a Python without the project's packages: how to enter the environment that has them.

    Raises the error again if the missing module is one of ours.
    """
    name = (error.name or "").partition(".")[0]
    if name in ("", "searchengine"):
        raise error
    environment = Path(__file__).resolve().parent.parent / ".venv"
    if environment == Path(sys.prefix) or not environment.parent.joinpath("Makefile").exists():
        remedy = "Install it: make install" if environment == Path(sys.prefix) else f"Install it: pip install {name}"
    elif (environment / "bin" / "activate").exists():
        remedy = f"Enter the environment that has it: source {environment}/bin/activate"
    else:
        remedy = f"Make an environment and enter it: make install && source {environment}/bin/activate"
    return f"The package {name} is missing from this Python ({sys.executable}). {remedy}"


class SearchEngineError(Exception):
    """Base of all exceptions of this package."""


class ImageError(SearchEngineError):
    """A single image cannot be used."""


class NotAnImageError(ImageError):
    """The bytes are not an image in a format that can be read."""


class DamagedImageError(ImageError):
    """It starts like an image, but is cut short or broken."""


class ImageTooLargeError(ImageError):
    """More pixels or bytes than allowed."""


class DecodingKilledError(ImageError):
    """The process that decoded it was killed from outside, which says little about the image."""


class FileGoneError(ImageError):
    """The image is in the index, but its file is no longer where it was."""


class DecoderUnavailableError(SearchEngineError):
    """No process can be started to decode images. That says nothing about the image, so it is not an ImageError."""


class QueryError(SearchEngineError):
    """A request that cannot be answered."""


class UnknownImageError(QueryError):
    """There is no image with that id in the index."""


class IndexError_(SearchEngineError):  # noqa: N801, N818  (IndexError is Python's own)
    """The index as a whole cannot be used."""


class IndexNotFoundError(IndexError_):
    """There is no index in that folder."""


class IndexVersionError(IndexError_):
    """The index was written in another version of the format."""


class IndexDamagedError(IndexError_):
    """The files of the index contradict each other."""


class IndexLockedError(IndexError_):
    """Another run is writing to the index."""


class IndexUnavailableError(IndexError_):
    """The server that holds the index does not answer, or not in time."""


class ExtractorMismatchError(IndexError_):
    """The index was made by another extractor."""


class IndexingError(SearchEngineError):
    """An indexing run cannot continue."""


class LearningError(SearchEngineError):
    """Nothing can be learnt from the data given."""


class UnknownNameError(SearchEngineError):
    """There is no model, layer, metric or option with that name."""


class MissingPackageError(SearchEngineError):
    """An optional package is not installed."""


class ExtractorError(SearchEngineError):
    """A model cannot be built or run."""


class WeightsNotFoundError(ExtractorError):
    """The weights are missing and cannot be downloaded."""


def missing_extra(package: str, extra: str) -> MissingPackageError:
    """For a package of an optional extra: names the command that installs it."""
    return MissingPackageError(
        f"This needs {package}, which is not installed. Install it with: pip install 'searchengine[{extra}]'"
    )


def import_extra(module: str, package: str, extra: str) -> Any:
    """A module of a package of an optional extra; MissingPackageError."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_extra(package, extra) from error


def with_index_dir(command: str, place: object) -> str:
    """A command to copy into a shell, with the folder of an index, or its address."""
    return f"{command} --index-dir {shlex.quote(str(place))}"


def file_error(error: OSError) -> str:
    """A sentence about a file that cannot be used, and what to do."""
    file = "A file" if error.filename is None else os.fsdecode(error.filename)
    return f"{file} cannot be used: {error.strerror or error}. Check its permissions and the disk, and try again."


def closest_first(name: str, known: Iterable[str]) -> list[str]:
    """All the known names, the ones most like ``name`` first; ties keep their order."""

    def likeness(other: str) -> float:
        return difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()

    return sorted(known, key=likeness, reverse=True)


def check_name(kind: str, name: str, known: Iterable[str]) -> str:
    """``name`` if it is known, else UnknownNameError that lists the known names, the closest first."""
    names = list(known)
    if name in names:
        return name
    raise UnknownNameError(f"There is no {kind} {name!r}. Choose one of: {', '.join(closest_first(name, names))}.")
