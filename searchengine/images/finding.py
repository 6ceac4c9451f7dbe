"""Find the files of a folder that may be images. Names are bytes, as in the file system."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from searchengine.errors import IndexingError

# Files with these endings are skipped silently. Any others are opened, and recognised by their content.
_NOT_IMAGE_ENDINGS = """
txt text md rst rtf tex bib log csv tsv json jsonl ndjson geojson yaml yml toml xml xmp xsl ini cfg conf env lock
html htm xhtml css scss js mjs ts jsx tsx vue map php rb pl lua r jl m go rs c h cc cpp hpp cu java kt scala cs swift
py pyc pyi pyx ipynb sh bash zsh fish bat cmd ps1 sql mk cmake gradle diff patch
pdf doc docx dot odt ppt pptx odp xls xlsx ods epub mobi pages numbers key
zip tar gz tgz bz2 xz zst 7z rar jar whl iso dmg vdi vmdk qcow2 deb rpm apk
mp4 m4v mov avi mkv webm wmv flv mpg mpeg mts m2ts 3gp ogv mp3 m4a aac wav flac ogg oga opus wma mid midi
exe dll so dylib o a lib bin class msi app
db sqlite sqlite3 db3 mdb sqlite-shm sqlite-wal sqlite-journal db-shm db-wal db-journal
pkl pickle npy npz h5 hdf5 keras pt pth ckpt safetensors onnx tflite pb parquet arrow
feather mat tfrecord tfrecords
ttf otf woff woff2 lnk url desktop torrent part crdownload tmp bak swp aae thm md5 sha1 sha256 sig asc pem crt
"""
_NOT_IMAGES = frozenset(_NOT_IMAGE_ENDINGS.split())
# The same without an ending.
_NOT_IMAGE_NAMES = frozenset({"readme", "license", "licence", "copying", "notice", "authors", "changelog", "makefile"})
# Folders that operating systems leave beside photos, with thumbnails or deleted files in them.
_NOT_FOLDERS = frozenset({b"__MACOSX", b"@eaDir", b"$RECYCLE.BIN", b"System Volume Information", b"lost+found"})


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that may be an image: ``path`` relative to the folder, ``/``-separated; ``size`` in bytes."""

    path: bytes
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder or link that cannot be read, and the reason in words; ``path`` is as in FoundFile."""

    path: bytes
    reason: str


def find(root: Path, *, exclude: Sequence[str] = (), skip: Sequence[Path] = ()) -> Iterator[FoundFile | Unreadable]:
    """Yield every regular file below ``root`` that may be an image, in byte order of the paths.

    Skipped silently: hidden files and folders (``.name``), files whose ending belongs to something else (``.txt``,
    ``.mp4``, ...), pipes, sockets and devices, whatever matches one of the ``exclude`` patterns (shell style, on the
    relative path or on the name alone), and the folders in ``skip``. Links to files are followed; links to folders too,
    unless they lead below ``root`` or to a folder that was already visited.

    A folder that cannot be read, or a broken link, yields Unreadable, and the search continues. Raises IndexingError
    at once if ``root`` is missing, not a folder, or cannot be read.
    """
    top = os.fsencode(root)
    try:
        entries = _entries(top)
        place = _place(root.stat())
    except FileNotFoundError as error:
        raise IndexingError(f"There is no folder {root}. Is the disk connected, and the name right?") from error
    except NotADirectoryError as error:
        raise IndexingError(f"{root} is not a folder. Name the folder that holds the images.") from error
    except OSError as error:
        raise IndexingError(f"The folder {root} cannot be read: {_why(error)}. Check its permissions.") from error
    return _walk(top, entries, _Rules(top, place, exclude, skip))


class _Rules:
    """What is skipped, and which folders have been visited."""

    def __init__(self, top: bytes, place: tuple[int, int], exclude: Sequence[str], skip: Sequence[Path]) -> None:
        self._real_top = os.path.realpath(top)
        self._visited = {place}
        self._skipped = {_place(folder.stat()) for folder in skip if folder.exists()}
        wanted = [pattern.removeprefix("./").rstrip("/") for pattern in exclude]
        wanted += [pattern.removeprefix("**/") for pattern in wanted if pattern.startswith("**/")]
        self._excluded = re.compile("|".join(map(fnmatch.translate, wanted))) if wanted else None

    def skips(self, path: bytes, name: bytes) -> bool:
        if name.startswith(b"."):
            return True
        pattern = self._excluded
        return pattern is not None and any(pattern.match(os.fsdecode(text)) for text in (path, name))

    def visit(self, folder: os.DirEntry[bytes]) -> bool:
        """Whether to visit a folder: true only once for each."""
        place = _place(folder.stat())
        if folder.name in _NOT_FOLDERS or place in self._skipped or place in self._visited:
            return False
        if folder.is_symlink():
            # What lies below the top is found by its own path, or is hidden or excluded there.
            target = os.path.realpath(folder.path)
            if target == self._real_top or target.startswith(self._real_top.rstrip(b"/") + b"/"):
                return False
        self._visited.add(place)
        return True


def _walk(top: bytes, entries: list[os.DirEntry[bytes]], rules: _Rules) -> Iterator[FoundFile | Unreadable]:
    """Depth first, with an explicit stack: folders may nest deeper than Python's recursion limit."""
    stack = [(b"", iter(entries))]
    while stack:
        prefix, rest = stack[-1]
        entry = next(rest, None)
        if entry is None:
            stack.pop()
            continue
        path = prefix + entry.name
        if rules.skips(path, entry.name):
            continue
        try:
            if entry.is_dir():
                if rules.visit(entry):
                    stack.append((path + b"/", iter(_entries(entry.path))))
            elif _may_be_image(entry.name):
                info = entry.stat()
                if stat.S_ISREG(info.st_mode):
                    yield FoundFile(path, info.st_size, info.st_mtime_ns)
        except OSError as error:
            yield Unreadable(path, _why(error))


def _entries(folder: bytes) -> list[os.DirEntry[bytes]]:
    """The entries of a folder, sorted so that a walk yields paths in byte order."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name + b"/" if _is_dir(entry) else entry.name)


def _is_dir(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link, which the walk reports when it gets to it
        return False


def _may_be_image(name: bytes) -> bool:
    stem, dot, ending = os.fsdecode(name).lower().rpartition(".")
    return ending not in (_NOT_IMAGES if dot else _NOT_IMAGE_NAMES) and not (stem == "" and dot)


def _place(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
