"""Finds the files of a folder that may be images. Paths are bytes, as in the file system."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from searchengine.errors import IndexingError

# Files with these extensions are skipped silently. All others are opened and recognised by their content.
_NOT_IMAGE_EXTENSIONS = """
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
_NOT_IMAGES = frozenset(_NOT_IMAGE_EXTENSIONS.split())
# File names without an extension that are skipped in the same way.
_NOT_IMAGE_NAMES = frozenset({"readme", "license", "licence", "copying", "notice", "authors", "changelog", "makefile"})

# Folders and files that other programs put among photos, as shell patterns in lower case. A pattern matches a name or,
# if it has a slash, a whole path.
_RECYCLE_BINS = """
#recycle @recycle $recycle.bin recycler recycled .recycle .trash .trash-* .trashes .trashed-* .dtrash lost+found
"""
_SNAPSHOTS = "#snapshot @recently-snapshot @gmt-* .snapshot .snapshots ~snapshot .zfs .ckpt .timeshift"
_DERIVATIVES = """
@eadir @__thumb .@__thumb thumbs thumbnails _thumbs .thumbs .thumbnails .thumb .xvpics *.lrdata .dthumb syno*_thumb_*
*.photoslibrary/resources/derivatives *.photoslibrary/resources/proxies *.photoslibrary/resources/modelresources
*.photoslibrary/private *.photoslibrary/thumbnails *.photoslibrary/previews
*.photolibrary/thumbnails *.photolibrary/previews *.migratedphotolibrary/thumbnails *.migratedphotolibrary/previews
*.aplibrary/thumbnails *.aplibrary/previews
"""
_SYSTEM = "__macosx ._* .appledouble .spotlight-v100 .fseventsd @tmp"
_DEFAULT_EXCLUDES = {
    "recycle bins": [*_RECYCLE_BINS.split(), "network trash folder"],
    "snapshots": _SNAPSHOTS.split(),
    "thumbnails and previews": _DERIVATIVES.split(),
    "system files": [*_SYSTEM.split(), "system volume information", "temporary items"],
}
_NO_MEDIA = "folders with .nomedia"
_HIDDEN = "hidden files and folders"
LINKS_OUT = "links that lead out of the image folder"


_Place = tuple[int, int]  # device and inode
_SEPARATOR = os.fsencode(os.sep)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that may be an image: ``path`` relative to the folder, ``/``-separated; ``size`` in bytes."""

    path: bytes
    size: int
    mtime_ns: int
    ctime_ns: int  # when content, name or permissions last changed; on Windows, when the file was made


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder or link that cannot be read, and the reason in words; ``path`` as in FoundFile."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder that is left out by default; ``kind`` is a plural, such as "recycle bins"."""

    path: bytes
    kind: str
    is_folder: bool


@contextmanager
def folder_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError about an image folder into an IndexingError."""
    try:
        yield
    except FileNotFoundError as error:
        raise IndexingError(
            f"The image folder {folder} does not exist. Is its disk mounted, and the name right? Nothing was changed."
        ) from error
    except NotADirectoryError as error:
        raise IndexingError(f"{folder} is not a folder. Give the folder that holds the images.") from error
    except OSError as error:
        raise IndexingError(f"The image folder {folder} cannot be read: {error.strerror}.") from error


_KINDS = tuple(_DEFAULT_EXCLUDES)


def _kinds_of(*, paths: bool) -> re.Pattern[str]:
    """Compile the patterns with a slash, or those without, into one pattern with a group for each kind."""
    groups = (
        "|".join(fnmatch.translate(pattern) for pattern in patterns if ("/" in pattern) == paths) or "(?!)"
        for patterns in _DEFAULT_EXCLUDES.values()
    )
    return re.compile("|".join(f"({group})" for group in groups))


_LEFT_OUT_NAMES, _LEFT_OUT_PATHS = _kinds_of(paths=False), _kinds_of(paths=True)
_LAST_OF_PATHS = {pattern.rpartition("/")[2] for pattern in _DERIVATIVES.split() if "/" in pattern}


class Walk(Iterator[FoundFile | Unreadable]):
    """An iterator over every regular file below ``root`` that may be an image, in byte order of the paths.

    Skipped silently: files with the extension of another format (``.txt``, ``.mp4``, ...), pipes, sockets and devices,
    whatever matches one of the ``exclude`` patterns (shell style, on the relative path or on the name alone), and the
    folders in ``skip``.

    With ``default_excludes``, hidden files and folders (``.name``) are skipped too, and folders that other programs put
    among photos: recycle bins, snapshots, thumbnails, folders with a ``.nomedia`` file. Links that lead out of ``root``
    are followed only with ``follow_links``. A link to a folder below ``root``, or to a folder already visited, is never
    followed. For a folder that cannot be read, or a broken link, Unreadable is yielded and the search continues.

    At the end, ``left_out`` lists what was left out by default, and ``mounts`` the folders where another file system
    begins, b"" if the folder itself is a mount point.

    Raises IndexingError at once if ``root`` is missing, not a folder, or cannot be read.
    """

    def __init__(
        self,
        root: Path,
        *,
        exclude: Sequence[str] = (),
        skip: Sequence[Path] = (),
        default_excludes: bool = True,
        follow_links: bool = False,
    ) -> None:
        top = os.fsencode(root)
        with folder_errors(root):
            entries = _entries(top)
            place = _place(root.stat())
        self.left_out: list[LeftOut] = []
        self.mounts: list[bytes] = []
        self._default_excludes, self._follow_links = default_excludes, follow_links
        self._skipped = {_place(folder.stat()) for folder in skip if folder.exists()}
        patterns = [pattern.removeprefix("./").rstrip("/") for pattern in exclude]
        patterns += [pattern.removeprefix("**/") for pattern in patterns if pattern.startswith("**/")]
        self._excluded = re.compile("|".join(map(fnmatch.translate, patterns))) if patterns else None
        self._real_top = os.path.realpath(top)
        self._top_name = os.path.basename(self._real_top)  # noqa: PTH119  (bytes)
        self._visited = {place}
        if os.stat(os.path.dirname(self._real_top)).st_dev != place[0]:  # noqa: PTH116, PTH120
            self.mounts.append(b"")
        self._files = self._walk(entries, place[0])

    def __next__(self) -> FoundFile | Unreadable:
        return next(self._files)

    def excludes(self, path: bytes) -> bool:
        """Return whether one of the given patterns excludes a file, or a folder that contains it."""
        parts = path.split(b"/")
        return any(self._matches(b"/".join(parts[: i + 1]), part) for i, part in enumerate(parts))

    def _matches(self, path: bytes, name: bytes) -> bool:
        """Return whether one of the given patterns matches."""
        pattern = self._excluded
        return pattern is not None and any(pattern.match(os.fsdecode(text)) for text in (path, name))

    def _walk(self, entries: list[os.DirEntry[bytes]], device: int) -> Iterator[FoundFile | Unreadable]:
        """Walk depth first, with an explicit stack because folders may nest deeper than Python's recursion limit."""
        stack = [(b"", iter(entries), device)]
        while stack:
            prefix, rest, device = stack[-1]
            entry = next(rest, None)
            if entry is None:
                stack.pop()
                continue
            path = prefix + entry.name
            if self._matches(path, entry.name):
                continue
            try:
                if not entry.is_dir():
                    if (file := self._file(entry, path)) is not None:
                        yield file
                elif (below := self._below(entry, path, device)) is not None:
                    stack.append((path + b"/", iter(below), entry.stat().st_dev))
            except OSError as error:
                yield Unreadable(path, (error.strerror or type(error).__name__).lower())

    def _file(self, entry: os.DirEntry[bytes], path: bytes) -> FoundFile | None:
        """Return a regular file that may be an image and is not left out, else None."""
        if not _may_be_image(entry.name) or self._is_left_out(entry, path):
            return None
        info = entry.stat()
        is_regular = stat.S_ISREG(info.st_mode)
        return FoundFile(path, info.st_size, info.st_mtime_ns, info.st_ctime_ns) if is_regular else None

    def _below(self, folder: os.DirEntry[bytes], path: bytes, device: int) -> list[os.DirEntry[bytes]] | None:
        """Return the entries of a folder, whose parent is on a device; None if it is not to be visited."""
        place = _place(folder.stat())
        if place in self._skipped or self._is_left_out(folder, path) or not self._is_new(folder, place):
            return None
        if place[0] != device:
            self.mounts.append(path)
        below = _entries(folder.path)
        if self._default_excludes and any(entry.name == b".nomedia" for entry in below):
            self.left_out.append(LeftOut(path, _NO_MEDIA, is_folder=True))
            return None
        return below

    def _is_left_out(self, entry: os.DirEntry[bytes], path: bytes) -> bool:
        kind = self._kind_left_out(entry, path)
        if kind is not None:
            self.left_out.append(LeftOut(path, kind, entry.is_dir()))
        return kind is not None

    def _kind_left_out(self, entry: os.DirEntry[bytes], path: bytes) -> str | None:
        """Return the kind of a file or folder that is left out by default; None for any other."""
        if self._default_excludes:
            name = os.fsdecode(entry.name).lower()
            match = _LEFT_OUT_NAMES.match(name)
            if match is None and name in _LAST_OF_PATHS:
                match = _LEFT_OUT_PATHS.match(os.fsdecode(self._top_name + b"/" + path).lower())
            if match is not None and match.lastindex:
                return _KINDS[match.lastindex - 1]
            if name.startswith("."):
                return _HIDDEN
        if not self._follow_links and _is_link(entry) and not self._is_below_top(os.path.realpath(entry.path)):
            return LINKS_OUT
        return None

    def _is_below_top(self, real: bytes) -> bool:
        return real == self._real_top or real.startswith(self._real_top.rstrip(_SEPARATOR) + _SEPARATOR)

    def _is_new(self, folder: os.DirEntry[bytes], place: _Place) -> bool:
        """Return whether a folder is to be visited; true only once for each folder."""
        if place in self._visited:
            return False
        if _is_link(folder) and self._is_below_top(os.path.realpath(folder.path)):
            return False  # its files are found by their own paths, unless they are hidden or excluded there
        self._visited.add(place)
        return True


def _entries(folder: bytes) -> list[os.DirEntry[bytes]]:
    """Return the entries of a folder, sorted so that a walk yields paths in byte order."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name + b"/" if _is_dir(entry) else entry.name)


def _is_link(entry: os.DirEntry[bytes]) -> bool:
    """Return whether an entry is a link, or a Windows junction (Python 3.12 and later)."""
    return entry.is_symlink() or bool(getattr(entry, "is_junction", bool)())


def _is_dir(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link, which the walk reports when it reaches it
        return False


def _may_be_image(name: bytes) -> bool:
    stem, dot, extension = os.fsdecode(name).lower().rpartition(".")
    return extension not in (_NOT_IMAGES if dot else _NOT_IMAGE_NAMES) and not (stem == "" and dot)


def _place(info: os.stat_result) -> _Place:
    return info.st_dev, info.st_ino
